# `make demo` trains a pose model with the loss inside the compiled step; `make test` runs every check that needs no GPU.
# Both set up their own virtual environment in .venv first. PYTHON names the interpreter to build it from (3.11 or newer).
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint types format benchmark setup clean

demo: setup
	$(RUN) examples/train.py --out runs/demo

test: setup
	$(RUN) -m pytest

lint: setup
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .

types: setup
	$(RUN) -m pyright

format: setup
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

benchmark: setup
	$(RUN) examples/benchmarks/run.py

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
