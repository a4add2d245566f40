"""Instances of the proxy: the state that one keeps, how it announces itself, and those in the background."""
