"""The pure heart: facts, decisions and ports. No I/O, no event loop, no clock, standard library only."""
