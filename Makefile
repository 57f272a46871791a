# Two commands do all the set-up: `make weld` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= configs/weld.py

.PHONY: weld test lint peers benchmark clean

# Installs the package and runs the main job; run again, it resumes or re-renders.
weld: $(VENV)/.installed
	$(BIN)/python -m experiments.gpc --config=$(CONFIG)

# Tests that need torch, torchvision or pygpc say so and skip without `make peers`.
test: $(VENV)/.tested
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.tested
	$(BIN)/ruff check .

# What the tests and benchmarks compare with; about 1 GB with a CPU build of torch.
peers: $(VENV)/.tested
	$(BIN)/pip install --quiet torch==2.13.0 pygpc==0.4.4 SALib safetensors
	$(BIN)/pip install --quiet --no-deps torchvision==0.28.0 captum==0.9.0

benchmark: peers
	$(BIN)/python -m experiments.benchmark --suite=fit
	$(BIN)/python -m experiments.benchmark --suite=evaluation
	$(BIN)/python -m experiments.benchmark --suite=gpc --sections=functions,adaptive,bootstrap,coverage
	$(BIN)/python -m experiments.benchmark --suite=perturbations
	$(BIN)/python -m experiments.benchmark --suite=weights
	$(BIN)/python -m experiments.benchmark --suite=models
	$(BIN)/python -m experiments.benchmark --suite=kernels
	$(BIN)/python -m experiments.benchmark --suite=attribution

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
