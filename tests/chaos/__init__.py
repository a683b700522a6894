"""Faults: tests of each, a nemesis for all of them, and long runs (`python -m tests.chaos`)."""
