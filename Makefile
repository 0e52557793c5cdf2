# `make demo` and `make test` do everything from a fresh clone: they make .venv and install into it first.
# PYTHON chooses the interpreter (3.10 or newer).

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow docs notebooks package bench-speed bench-ratio tables format lint type commit-checks

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[magnetic,plot,extra,contrib,minari,onnx,hub,tests,docs]"
	touch $@

install: $(STAMP) ## make .venv and install the pinned versions into it

demo: $(STAMP) ## train FCDL on Chemical and print its returns beside the trivial policies (at most ten minutes)
	$(BIN)/python examples/demo.py

# The networks are small: a second thread a process costs more than it brings, a second process halves the time.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal --durations=10

test: $(STAMP) ## the tests, without the slow ones
	$(PYTEST) -m "not slow and not gpu"

test-slow: $(STAMP) ## all the tests
	$(PYTEST) -m "not gpu"

docs: $(STAMP) ## the manual, into docs/_build; a warning, or a link to nowhere, is an error
	$(BIN)/python -m sphinx -b html -q -W --keep-going -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

notebooks: $(STAMP) ## run the notebooks of the manual and keep their outputs (three minutes of one core)
	OMP_NUM_THREADS=1 $(BIN)/jupyter execute --NotebookClient.record_timing=False --inplace docs/notebooks/*.ipynb

package: $(STAMP) ## the wheel and the source archive, into dist/; both are looked into
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[package]"
	$(BIN)/python -m build -o dist .
	$(BIN)/python -m twine check --strict dist/*

bench-speed: $(STAMP) ## times of updates, plans and the simulator, beside the dense path (15 minutes); kept with the results
	$(BIN)/python benchmarks/speed.py --json benchmarks/results/speed

bench-ratio: $(STAMP) ## times beside those of the commit before, in one run (two minutes); fails below 0.7
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ratio.py --fail-below 0.7

tables: $(STAMP) ## print the tables of the docs anew from the result files
	$(BIN)/python benchmarks/tables.py

format: $(STAMP) ## sort the imports and format
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

lint: $(STAMP) ## code, format and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(STAMP) ## mypy
	$(BIN)/mypy

commit-checks: format lint type test ## what a commit must pass
