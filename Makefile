# Everything runs in .venv, which the first target that needs it makes. PYTHON chooses its Python (3.10 or later).

PYTHON ?= python3
BIN := .venv/bin
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test slow lint types format wheel clean

demo: .venv/.demo
	$(BIN)/python pipelines/demo.py

test: .venv/.dev  # a process per core, each on one thread: they would wait for each other's threads
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4

slow: .venv/.dev
	$(BIN)/python -m pytest -m slow

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: .venv/.dev
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: .venv/.dev
	rm -rf build
	$(BIN)/python -m build --wheel

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# torch goes first and alone: whichever build of it the index offers, or is there already, stays.
.venv/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $(TORCH)
	touch $@

.venv/.demo: .venv/.torch pyproject.toml
	$(PIP) --constraint constraints.txt --editable '.[demo]'
	touch $@

.venv/.dev: .venv/.torch pyproject.toml
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@
