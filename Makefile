# Set-up and the daily commands. `make demo` and `make test` need only Python 3.11, make and g++.
STACK  ?= cpu
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PINS   := cluster/requirements-$(STACK).txt
STAMP  := $(VENV)/installed-$(STACK)
PYTEST := $(BIN)/python -m pytest

# The CPU build of torch is not on PyPI. Where PIP_FIND_LINKS holds its wheel it comes from there;
# elsewhere uv takes it from PyTorch's own index.
ifeq ($(STACK),cpu)
TORCH := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),--torch-backend cpu)
endif

.PHONY: venv demo demo-seeds study test test-all lint perf chaos soak clean requirements

venv: $(STAMP)

# Rebuilt when the pins or the project's metadata are newer than the last finished install.
$(STAMP): $(PINS) pyproject.toml
	@command -v g++ >/dev/null || { echo "g++ is missing: sudo apt-get install -y g++"; exit 3; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
	  || { echo "Python 3.11 is missing: sudo apt-get install -y python3.11 python3.11-venv (or set PYTHON=/path/to/python3.11)"; exit 3; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "Python's venv is missing: sudo apt-get install -y python3-venv"; exit 3; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(TORCH) --compile-bytecode --requirement $(PINS)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@rm -f $(VENV)/installed-*
	@touch $@

demo: $(STAMP)
	$(BIN)/halo-forge pipeline --config jobs/demo.yaml

# The demo with the seeds 0, 1 and 2; then the study: all problems, five cycles, three seeds. Both
# take a seed at a time, go on where they were stopped, and skip a seed whose result is there.
demo-seeds: $(STAMP)
	$(BIN)/halo-forge study --config jobs/demo.yaml --output runs/demo-seeds --results jobs/results/demo

study: $(STAMP)
	$(BIN)/halo-forge study --config jobs/study.yaml --output runs/study --results jobs/results/study

test: $(STAMP)
	$(PYTEST) -m "not slow"

test-all: $(STAMP)
	$(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

perf: $(STAMP)
	$(BIN)/python -m tests.perf.run

# RAFT on two Ray nodes, each run killed at a random moment in a random part.
RUNS ?= 20
chaos: $(STAMP)
	$(BIN)/python -m tests.chaos $(RUNS)

# So many verdicts with no cache, after which nothing may have grown or be left.
VERDICTS ?= 20000
soak: $(STAMP)
	$(BIN)/python -m tests.perf.soak --verdicts $(VERDICTS)

clean:
	rm -rf $(VENV) runs build perf.json *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Resolves the complete pins again, after a change in pyproject.toml or cluster/*.in.
COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --extra dev \
	-c cluster/constraints.in --override cluster/overrides.in --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate
requirements:
	$(COMPILE) --extra cpu $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),--torch-backend cpu) \
	  --python-platform x86_64-manylinux_2_28 --output-file cluster/requirements-cpu.txt
	$(COMPILE) --extra gpu --python-platform x86_64-manylinux_2_28 \
	  --output-file cluster/requirements-gpu.txt
