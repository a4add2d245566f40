"""How services are run: one module per runtime, each an implementation of core.ports.Runtime."""
