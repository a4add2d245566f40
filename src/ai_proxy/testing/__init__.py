"""Shipped fakes and contract suites, for our tests and for those who write runtimes and engines."""
