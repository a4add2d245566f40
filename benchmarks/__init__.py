"""How much ai-proxy costs, next to other proxies given the same work on the same machine.

`main` runs it all. `messages` is what goes over the wire, `engine` the fake backend that answers it and
`load` the clients that ask for it. `proxies` knows how each contender is set up, `processes` starts and ends
them, `procfs` reads what they used. `works` are the kinds of work, `results` what came of them and `report`
the table.
"""
