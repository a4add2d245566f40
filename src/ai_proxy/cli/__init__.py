"""The command line, one module per command group; heavy imports stay inside the commands."""
