"""How services are run: one folder per runtime, and one descriptor for each."""
