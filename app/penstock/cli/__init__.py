"""Penstock's verbs on the command line. Data goes to stdout, all that is said to stderr."""
