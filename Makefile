# The two commands of the README: `make demo` and `make test`. Both make their own virtual environment first.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow lint docs figures wheel clean

demo: .venv/examples
	$(BIN)/perceiver-io demo --output outputs/demo

test: lint
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist worksteal

test-slow: .venv/dev
	$(BIN)/python -m pytest -m slow

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy perceiver_io conversion

.venv/%: setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable '.[$*]'
	touch $@

docs: .venv/docs
	$(BIN)/mkdocs build --strict

figures: .venv/dev
	$(BIN)/python -m docs.make_figures

wheel: .venv/dev
	rm -rf build dist && mkdir dist
	$(BIN)/python -c "from setuptools import build_meta; build_meta.build_wheel('dist'); build_meta.build_sdist('dist')"

clean:
	rm -rf .venv outputs build dist
