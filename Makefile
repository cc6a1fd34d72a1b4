# `make demo` trains the first example, `make test` runs the tests, `make check` is what CI runs.
# Each sets up .venv by itself, once; python3 with venv and pip is all that must be there.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
JOBS   ?= 2

# One thread a process: tests run side by side, and sums are added in one order.
export OMP_NUM_THREADS ?= 1
# No display is needed.
export MPLBACKEND ?= Agg
export NO_MKDOCS_2_WARNING := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.NOTPARALLEL:
.PHONY: help setup demo test lint format docs wheel check compat compat-oldest compat-newest constraints bench clean

help:
	@echo "make demo      train examples/01-basic.py on MNIST digits, save curves.png"
	@echo "make test      run the tests (with the examples, the docs' code and the doctests)"
	@echo "make lint      ruff, mypy and the layers of the modules"
	@echo "make docs      build the documentation into site/"
	@echo "make wheel     build dist/*.whl"
	@echo "make check     lint, docs and tests: what CI runs"
	@echo "make compat    the tests on the oldest and the newest Python and torch (in .compat/)"
	@echo "make bench     measure against other libraries (in .bench/), write benchmarks/RESULTS.md and the chart"
	@echo "make format    lay out the code with ruff"

setup: $(READY)

# torch comes first and alone, so that no other package chooses its build.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq -c constraints.txt torch
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(READY)
	$(BIN)/python examples/01-basic.py

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) -q

lint: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Not --quiet, which would hide the warnings from --strict.
docs: $(READY)
	$(BIN)/mkdocs build --strict

wheel: $(READY)
	$(BIN)/python -m build --no-isolation --outdir dist .

# The tests come last, so that their summary closes the log. They also build the wheel,
# install it into an empty environment and train with it (tests/unit/test_wheel.py).
check: lint docs test

# The ends of what pyproject.toml promises, each with a Python and a torch of its own and whatever
# else pip finds to go with them. These releases of torch bring their CUDA packages: some GB.
OLDEST ?= python3.10 torch==2.8.0
NEWEST ?= python3.13 torch==2.14.1

compat: compat-oldest compat-newest

compat-oldest: ENDS = $(OLDEST)
compat-newest: ENDS = $(NEWEST)
compat-oldest compat-newest: compat-%:
	test -x .compat/$*/bin/python || $(firstword $(ENDS)) -m venv .compat/$*
	.compat/$*/bin/python -m pip install -qq $(lastword $(ENDS)) -e ".[test]"
	.compat/$*/bin/python -c 'import sys, torch; print("Python", sys.version.split()[0], "torch", torch.__version__)'
	.compat/$*/bin/python -m pytest -n $(JOBS) -q

# pip freeze in the form of constraints.txt; torch without its local build tag.
constraints: $(READY)
	@head -2 constraints.txt > constraints.new
	@$(BIN)/python -m pip freeze --exclude-editable | sed -n 's/^torch==\([^+]*\).*/torch==\1/p' >> constraints.new
	@$(BIN)/python -m pip freeze --exclude-editable | grep -v '^torch==' | sort -f >> constraints.new
	@mv constraints.new constraints.txt

# Nothing of it is in .venv: the peers need other versions, and there are two libraries of our name.
BENCH  := .bench/venv/bin/python
ROUNDS ?= 5
PEER_ROUNDS ?= $(ROUNDS)

.bench/.ready: benchmarks/requirements.txt constraints.txt
	test -x $(BENCH) || $(PYTHON) -m venv .bench/venv
	$(BENCH) -m pip install -qq -c constraints.txt torch
	$(BENCH) -m pip install -qq -c constraints.txt -e . torchmetrics
	$(BENCH) -m pip install -qq -c constraints.txt -r benchmarks/requirements.txt
	-$(BENCH) -m pip uninstall -qq -y torchvision  # fastai's, not built for this torch
	$(BENCH) -m pip install -qq --no-deps --target .bench/deepepochs-0.6 deepepochs==0.6.18
	@touch $@

bench: .bench/.ready
	$(BENCH) benchmarks/run.py --rounds $(ROUNDS) --peer-rounds $(PEER_ROUNDS) --results benchmarks/RESULTS.md
	$(BENCH) benchmarks/chart.py

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache
