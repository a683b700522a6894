# Needs Python 3.11 or later, make and git; everything else is set up in .venv/.
# Another Python: make setup PYTHON=/path/to/python3

PY := .venv/bin/python
SIDE_BY_SIDE := 2

.PHONY: help setup run test lint bench chaos panels lock clean

help:
	@echo "make run    starts Penstock with PostgreSQL and Redis of its own on port 8080"
	@echo "make test   lint, types and every test, against real servers"
	@echo "make lint   lint and types only"
	@echo "make bench  measures throughput and latency"
	@echo "make chaos  runs faults under load: ARGS='--minutes 5', ARGS=--help"
	@echo "make panels draws Grafana's dashboards of config/grafana/dashboards.yaml"
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
	$(PY) -m pytest -n $(SIDE_BY_SIDE) --dist loadfile -m "not alone"
	$(PY) -m pytest -m alone

bench: setup
	$(PY) -m tests.bench

chaos: setup
	$(PY) -m tests.chaos $(ARGS)

panels: setup
	@$(PY) -m tests.observed

# For every Python and machine that we support at once; names no place to download from.
# requirements.lock: all that developers use. Of it, runtime.lock: what the image holds, with every
# extra; build.lock: what makes the wheel. KEEP=1: only what pyproject.toml now wants besides.
COMPILE = $(PY) -m uv pip compile --universal --python-version 3.11 --generate-hashes --quiet \
  --no-config --custom-compile-command 'make lock'
PART = $(COMPILE) --upgrade --no-annotate -c config/requirements.lock

lock: setup
	$(PY) -m pip install --quiet 'uv>=0.13,<0.14'
	$(COMPILE) $(if $(KEEP),,--upgrade) pyproject.toml --group dev --all-extras \
	  -o config/requirements.lock
	$(PART) pyproject.toml --all-extras -o config/runtime.lock
	$(PART) --group build -o config/build.lock
	@! grep -n -E '://|^--' config/*.lock

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find app tests -name __pycache__ -type d -prune -exec rm -rf {} +
