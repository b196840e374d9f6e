# Every target sets up what it needs: a virtual environment with pinned dependencies.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
# Of its own, because JAX, which some of the peers bring, changes how pymbar computes.
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed
DEMO_OUT ?= runs/demo
WORKERS ?= 2

# Idle OpenMP threads sleep instead of spinning: on a machine with other work, spinning costs tenfold.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test lint types unit test-slow test-peers test-gpu docs clean

demo: $(STAMP)
	$(BIN)/nessampler run amber-to-amoeba --preset quick --seed 0 --out $(DEMO_OUT) --resume

test: lint types unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright

# A file's tests share fixtures that are dear to make, so a file stays with one worker. Workers fill the cores: threads of
# the runs that they start would only wait for one another.
unit: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

test-peers: $(PEERS_STAMP)
	$(PEERS)/bin/python -m pytest -m peers tests/test_peers.py

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu tests/test_gpu.py

docs: $(DOCS_STAMP)
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV) $(PEERS) build dist docs/_build

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("nessampler needs Python 3.11 or newer: got " + sys.version.split()[0] + "; set PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[molecular,dev]'
	touch $@

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[molecular,dev,docs]'
	touch $@

$(PEERS_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(PEERS)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[peers,dev]'
	touch $@
