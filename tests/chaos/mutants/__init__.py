"""The checker's own test: bugs seeded into a copy of the engine, each of which it must catch.

`patches.py` makes the copy, `scenes.py` has what is done to it, `seeded.py` the list of bugs,
`trial.py` runs one and judges. `python -m tests.chaos.mutants` runs all and prints a table.
"""
