# `make demo` trains a pose model with the loss inside the compiled step; `make test` runs every check that needs no GPU.
# Both set up their own virtual environment in .venv first. PYTHON names the interpreter to build it from (3.11 or newer).
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

WEB := export/consumers/web
PORT ?= 8000

# Of `make trainers`: names of programs in examples/trainers; empty runs all of them.
TRAINERS ?=

# Of `make fuzz`: see tests/fuzz/run.py.
MODE ?= eager
BATCHES ?= 100000
SEED ?= 0

# Of `make thorough`: none begins later; empty runs all.
MINUTES ?=

# Of `make matrix`: versions of torch and options of tests/matrix.py.
MATRIX ?=

.PHONY: demo explorer test test-all thorough matrix fuzz lint types format benchmark trainers docs package setup clean

demo: setup
	$(RUN) examples/train.py --out runs/demo

explorer: setup $(WEB)/node_modules/.package-lock.json
	$(RUN) -m export.consumers.web.build --serve $(PORT)

# A file of tests goes to one worker, which makes what its tests share once; tests marked `apart` fill the gaps.
test: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist loadgroup --durations 20 -m 'not thorough'

# What `make test` samples, in full, or as much of it as begins within so many minutes: make thorough MINUTES=20
thorough: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --durations 10 -m thorough $(if $(MINUTES),--minutes $(MINUTES))

test-all: test thorough

# Under several versions of torch, under build/matrix: make matrix MATRIX='2.14.1 --groups losses audit'
matrix: setup
	$(RUN) tests/matrix.py $(MATRIX)

# make trainers TRAINERS='lightning accelerate': each in an environment of its own, under build/trainers.
trainers: setup
	$(RUN) examples/trainers/run.py $(TRAINERS)

# make fuzz MODE='exported onnx' BATCHES=5000 SEED=7
fuzz: setup
	OMP_NUM_THREADS=1 $(RUN) -m tests.fuzz.run --mode $(MODE) --seed $(SEED) --batches $(BATCHES)

lint: setup
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .

types: setup
	$(RUN) -m pyright

format: setup
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

# make benchmark BENCHMARK='--labels labels.json --rounds 5'
benchmark: setup
	$(RUN) examples/benchmarks/run.py $(BENCHMARK)

# The reference as pages: build/docs/index.html.
docs: setup
	$(RUN) .docs/build.py build/docs

# A wheel and an sdist in build/dist, checked, and used in empty environments; the tools for it have their own.
package: build/release/.ready
	build/release/bin/python tests/packaging.py build/dist

build/release/.ready: Makefile
	$(PYTHON) -m venv build/release
	build/release/bin/python -m pip install --quiet build==1.6.1 twine==7.0.0 check-wheel-contents==0.6.3
	touch $@

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund --prefix $(WEB)
	touch $@

clean:
	rm -rf $(VENV) build $(WEB)/node_modules *.egg-info .pytest_cache .ruff_cache .hypothesis
