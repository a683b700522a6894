"""What Penstock reaches on this machine, as it comes: `python -m tests.bench`, or `make bench`."""
