# Needs python3 (with venv) and make, nothing else; uses uv where it is installed.
# Another interpreter: make test PYTHON=python3.13

PYTHON  ?= python3
WORKERS ?= 2
VENV    := .venv
BIN     := $(VENV)/bin
UV      := $(shell command -v uv 2>/dev/null)

ifneq ($(UV),)
INSTALL := $(UV) pip install --python $(BIN)/python -c constraints.txt
else
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-full test-kill test-vision lint bench bench-speed gallery notebooks clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.core ## install what a user needs into .venv, then run the demonstration
	$(BIN)/pplebm demo

test test-quick test-full test-kill: export OMP_NUM_THREADS = 1
test: lint ## what must hold before a change is merged: lint, tests, doctests
	$(BIN)/pytest -n $(WORKERS) -m "not full and not kill and not vision" --doctest-modules tests pplebm models inference

test-quick: lint ## lint, and the tests that take a moment each
	$(BIN)/pytest -n $(WORKERS) -m "not slow and not full and not kill and not vision" tests

test-full: lint ## everything: every pair of values of slow laws, all notebooks
	$(BIN)/pytest -n $(WORKERS) -m "not kill and not vision" --doctest-modules tests pplebm models inference

test-kill: $(VENV)/.dev ## runs killed at random instants, which must end as if they were not; takes half an hour
	$(BIN)/pytest -n $(WORKERS) -m kill tests/runs/test_kill.py

# torchvision has to be the build for its torch; these two match, and import without a GPU as well.
VISION_PINS := torch==2.14.1 torchvision==0.29.1
VISION := .venv-vision

test-vision: $(VISION)/.dev ## torchvision's readers, transforms and grids, in an environment of 6 GB of its own
	$(VISION)/bin/pytest -m vision tests/data/test_vision.py

$(VISION)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VISION)
	grep -Ev '^torch(vision)?==' constraints.txt > $(VISION)/constraints.txt
	$(VISION)/bin/python -m pip install --disable-pip-version-check -c $(VISION)/constraints.txt $(VISION_PINS) -e '.[vision,numpyro]' pytest hypothesis
	@touch $@

lint: $(VENV)/.dev ## ruff and mypy; changes no file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.core ## the benchmark on handwritten digits
	$(BIN)/python benchmarks/digits.py

bench-speed: $(VENV)/.dev ## the speed of learning beside the published style of loop, on an idle machine
	$(BIN)/python benchmarks/speed.py

gallery: $(VENV)/.dev ## every page learns at toy size, on both backends; minutes
	$(BIN)/python benchmarks/gallery.py

notebooks: $(VENV)/.dev ## execute the notebooks and keep their outputs
	@$(BIN)/python -c "$$EXECUTE"

clean: ## remove builds and caches; keeps .venv and runs/
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The two installations: .core is what a user needs, .dev adds the tools. Each stamp is made once per change of the pins.

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.core $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("pplebm needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# A notebook is an .ipynb file, or a .py file in the percent format whose outputs go to the .ipynb file beside it.
define EXECUTE
import pathlib, jupytext, nbclient
folder = pathlib.Path("notebooks")
sources = {path.stem: path for pattern in ("*.ipynb", "*.py") for path in sorted(folder.glob(pattern))}
for path in sources.values():
    print("executing", path, flush=True)
    notebook = jupytext.read(path)
    nbclient.NotebookClient(notebook, timeout=1800, record_timing=False, resources={"metadata": {"path": str(folder)}}).execute()
    jupytext.write(notebook, path.with_suffix(".ipynb"))
endef
export EXECUTE
