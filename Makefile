# Every target sets up what it needs: an environment in .venv, and in it this project.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: help demo lab test lint bundle coverage mutants stress bench notebooks recordings clean

help:
	@echo "make demo    talk to the embedded model: sets everything up, runs the quickstart, exits"
	@echo "make lab     open JupyterLab on the quickstart"
	@echo "make test    set everything up, check the code, run all tests"
	@echo "make bundle  build the dashboards' pages into the package; needs node"
	@echo "make stress  the tests that count, in full numbers"
	@echo "make mutants breaks each guarantee once, and shows that its tests notice"
	@echo "make bench   speed, side by side with other tools"

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.lab: $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[embedded,lab]"
	touch $@

$(VENV)/.tutorials: $(VENV)/.lab
	$(BIN)/python -m pip install --quiet --editable ".[embedded,lab,compare]"
	touch $@

$(VENV)/.dev: $(VENV)/.lab
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: $(VENV)/.lab
	$(BIN)/python scripts/demo.py

lab: $(VENV)/.tutorials
	$(BIN)/jupyter lab $(AS_ROOT) --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/01_quickstart.ipynb

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bundle:
	cd frontend && npm ci --silent && npx --no-install tsc --noEmit && node build.mjs

test: lint
	scripts/check_bundle
	scripts/ensure_chromium
	$(BIN)/python -m pytest -m "not alone" --numprocesses 3 --dist loadgroup
	$(BIN)/python -m pytest -m alone --numprocesses 2 --dist loadgroup
	scripts/run_notebooks --check $(BIN)/python $(NOTEBOOKS)

coverage: $(VENV)/.dev
	$(BIN)/python -m pytest --cov --cov-report=term

mutants: $(VENV)/.dev
	$(BIN)/python -m tests.reliability.mutations

stress: $(VENV)/.dev
	LLM_JUPYTER_STRESS=1 $(BIN)/python -m pytest -rA -m stress

bench: $(VENV)/.dev
	$(BIN)/python -m tests.benchmarks

notebooks: $(VENV)/.tutorials
	scripts/run_notebooks $(BIN)/python $(NOTEBOOKS)

recordings: $(VENV)/.dev
	$(BIN)/python scripts/capture_streams.py

clean:
	rm -rf $(VENV) .cache
