"""A byte-level fuzzer of the front door: `python -m tests.fuzz --help`."""
