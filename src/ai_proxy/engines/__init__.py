"""The software that answers: one module per engine, each an implementation of core.ports.Engine."""
