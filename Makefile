# dspylab for developers: `make` alone lists the targets. Everything happens inside .venv.

PYTHON ?= python3
PYTEST_ARGS ?= -n auto --dist loadgroup
DEMO := experiments/triage/experiment.yaml

BIN := .venv/bin
UV := $(BIN)/uv

# No surprise traffic: DVC sends no analytics, LiteLLM reads the price table that it ships.
export DVC_NO_ANALYTICS := 1
export LITELLM_LOCAL_MODEL_COST_MAP := True
# A virtual environment of somebody else must not be the one that is filled.
unexport VIRTUAL_ENV CONDA_PREFIX
# Each command starts Python anew, which is much slower where every module is compiled again.
unexport PYTHONDONTWRITEBYTECODE

# The name of the stamp is the content of what setup reads: nothing to do unless that changed, whatever
# the clock or a checkout did to the files' times.
STAMP := .venv/.dspylab-setup-$(shell cat requirements.lock pyproject.toml | cksum | tr -s ' \t' '--')

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage mutation wheel-test lowest-test editors-test lint format lock docs build clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## Fill .venv with the locked dependencies and this project (a no-op when nothing changed)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "dspylab needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." >&2; \
		echo "Say which one to use, for example: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(UV) --version >/dev/null 2>&1 || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[^ ]*' requirements.lock)"
	$(UV) pip sync --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@rm -f .venv/.dspylab-setup-* && touch $@

demo: setup ## Run the demo experiment on the embedded model: no key, no network
	@$(BIN)/dspylab validate --config $(DEMO)
	@$(BIN)/dspylab run --config $(DEMO)
	@echo "Look closer: $(BIN)/dspylab show -c $(DEMO)   (also compare, report, check, plan)"

test: setup ## Run the tests (PYTEST_ARGS replaces the default '-n auto --dist loadgroup')
	HF_HUB_OFFLINE=1 $(BIN)/pytest $(PYTEST_ARGS)

# With Python 3.12 or newer: 3.11 may fail to trace a thread, which then ends at once ("Cannot install a trace
# function while another trace function is being installed"). Hence without a test that starts 512 of them.
UNTRACED := tests/test_models.py::test_512_calls_are_in_flight_at_once

coverage: setup ## Run the tests; fails when they reach too little (95%, of the pure packages 100%)
	HF_HUB_OFFLINE=1 $(BIN)/pytest $(PYTEST_ARGS) --cov --cov-report=term --deselect $(UNTRACED)
	$(BIN)/coverage report --fail-under=100 --include='dspylab/plan/*,dspylab/aggregate/*,dspylab/record/*,dspylab/config/*'

# An environment of its own: nothing else needs what mutmut brings. It works on a copy in mutants/.
mutation: setup ## See which changes of the pure packages no test notices (an hour; MUTANTS='dspylab.plan.*')
	$(UV) venv --quiet --clear --python $$($(BIN)/python -c 'import sys; print(sys.executable)') build/mutation/env
	$(UV) pip sync --quiet --python build/mutation/env/bin/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python build/mutation/env/bin/python mutmut==3.8.1
	mkdir -p mutants # has to be there when Python starts, or it is not looked at again
	HF_HUB_OFFLINE=1 PYTHONPATH=$(CURDIR)/mutants build/mutation/env/bin/mutmut run $(MUTANTS)
	build/mutation/env/bin/mutmut results

# Not the interpreter in .venv: the wheel has to work without anything that lies around here.
wheel-test: setup ## Build the wheel and try it in an environment of its own (EXTRAS=local also runs the example)
	rm -rf build/wheel
	$(BIN)/hatchling build --target wheel --directory build/wheel
	$(UV) venv --quiet --seed --python $$($(BIN)/python -c 'import sys; print(sys.executable)') build/wheel/env
	$(UV) pip install --quiet --python build/wheel/env/bin/python "$$(ls build/wheel/*.whl)$(if $(EXTRAS),[$(EXTRAS)])"
	cp tests/wheel/check.py build/wheel/env/ && cd build/wheel/env && bin/python -I check.py

# The lower bounds of pyproject.toml are promises too.
lowest-test: setup ## Run the fast tests with the lowest versions that pyproject.toml allows
	mkdir -p build/lowest
	$(UV) pip compile --quiet --resolution lowest-direct --no-header --no-annotate \
		--extra dask --extra local --extra optuna --extra parquet --extra report --extra text \
		--group dev --group demo --group examples pyproject.toml \
		--output-file build/lowest/requirements.txt
	$(UV) venv --quiet --clear --python $$($(BIN)/python -c 'import sys; print(sys.executable)') build/lowest/env
	$(UV) pip sync --quiet --compile-bytecode --python build/lowest/env/bin/python build/lowest/requirements.txt
	$(UV) pip install --quiet --python build/lowest/env/bin/python --no-deps --no-build-isolation --editable . pip
	HF_HUB_OFFLINE=1 build/lowest/env/bin/python -m pytest $(PYTEST_ARGS) -m "not slow and not torture"

editors-test: setup ## Check what editors complete in experiment files (installs yaml-language-server with npm)
	npm install --silent --no-audit --no-fund --no-save --no-package-lock --prefix build/editors yaml-language-server@2.0
	$(BIN)/pytest tests/test_editors.py

lint: setup ## Check style, format, types and what GitHub reads
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@echo "mypy, and mypy --platform darwin: what only Linux has is not used unasked"
	@$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin & darwin=$$!; $(BIN)/mypy && wait $$darwin
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions action.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/idea.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml

format: setup ## Mend what ruff can mend by itself
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

lock: setup ## Resolve requirements.lock anew (UV_ARGS=--upgrade for the newest versions)
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--extra dask --extra local --extra optuna --extra parquet --extra report --extra text --group dev --group docs \
		--group demo --group examples $(UV_ARGS) pyproject.toml --output-file requirements.lock

docs: setup ## Build the documentation into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

build: setup ## Build the wheel and the source archive into dist/
	$(BIN)/hatchling build

clean: ## Remove the virtual environment, caches and builds (results and DVC's cache stay)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov mutants build dist site
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
