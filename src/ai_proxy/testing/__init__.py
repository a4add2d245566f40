"""A kit for those who write runtimes and engines: contract suites to pass, and fakes to test with.

`docs/testing.md` shows how to use it; it needs the extra `testing`.
"""

__all__ = ["contracts", "fake_engine", "fakes", "relay"]
