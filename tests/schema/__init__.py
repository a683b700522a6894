"""The whole document against a live server: schemathesis with every check that it has."""
