# Needs Python 3.11 or later, make and git; everything else is set up in .venv/.
# Another Python: make setup PYTHON=/path/to/python3

PY := .venv/bin/python

.PHONY: help setup run test lint bench chaos lock clean

help:
	@echo "make run    starts Penstock with PostgreSQL and Redis of its own on port 8080"
	@echo "make test   lint, types and every test, against real servers"
	@echo "make lint   lint and types only"
	@echo "make bench  measures throughput and latency"
	@echo "make chaos  runs faults under load: ARGS='--minutes 5', ARGS=--help"
	@echo "make lock   resolves the dependencies anew into config/requirements.lock"
	@echo "make clean  removes caches and .venv; keeps the data in .penstock"

setup:
	@PYTHON="$(PYTHON)" sh .ci/setup

run: setup
	@.venv/bin/penstock dev

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy app/penstock tests

test: lint
	$(PY) -m pytest

bench: setup
	$(PY) -m tests.bench

chaos: setup
	$(PY) -m tests.chaos $(ARGS)

# For every Python and machine that we support at once; names no place to download from.
lock: setup
	$(PY) -m pip install --quiet 'uv>=0.13,<0.14'
	$(PY) -m uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
	  --generate-hashes --upgrade --quiet --no-config \
	  --custom-compile-command 'make lock' -o config/requirements.lock
	@! grep -n -E '://|^--' config/requirements.lock

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find app tests -name __pycache__ -type d -prune -exec rm -rf {} +
