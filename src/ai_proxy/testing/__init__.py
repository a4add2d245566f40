"""A kit for those who write runtimes and engines: contract suites to pass, and fakes to test with."""
