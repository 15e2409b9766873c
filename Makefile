# `make` lists what there is. Everything runs from Python 3.11 or later and make alone: uv is taken from
# PATH or installed into .tools/, the dependencies go into .venv/.

.DEFAULT_GOAL := help
.PHONY: help demo test check bake clean setup baked

PYTHON ?= python3
UV ?= $(or $(shell command -v uv 2>/dev/null),$(CURDIR)/.tools/bin/uv)
RUN = "$(UV)" run --no-sync

# The service that the default answers give, in the folder $(1): what it has installed and stored is kept,
# everything else is written anew.
BAKE = @mkdir -p $(1)/country-service && \
	find $(1)/country-service -mindepth 1 -maxdepth 1 \
	  ! -name .venv ! -name uv.lock ! -name .dev ! -name .env -exec rm -rf {} + && \
	$(RUN) cookiecutter . --default-config --no-input --overwrite-if-exists --output-dir $(1)
SERVICE = $(MAKE) --no-print-directory UV="$(UV)" PYTEST_ARGS= -C

unexport VIRTUAL_ENV

help: ## list the commands
	@echo "make COMMAND, where COMMAND is one of:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-7s%s\n", $$1, $$2 }' Makefile

demo: setup ## generate the default service into demo/ and run it, without Docker (Ctrl-C ends it)
	@echo "== Generating the default service: demo/country-service"
	$(call BAKE,demo) >/dev/null
	@echo "== Running it, as you would: cd demo/country-service && make run"
	@trap : INT; $(SERVICE) demo/country-service run || [ $$? -eq 130 ]

test: setup ## test the template, then a generated service; TEST_SERVICES and PYTEST_ARGS as you like
	@echo "== Testing the template (tests/)"
	$(RUN) pytest $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory baked
	@echo "== Testing the service: cd .baked/country-service && make test"
	@$(SERVICE) .baked/country-service test

check: setup ## lint, format, types and links of the template, then of a generated service
	@echo "== Checking the template"
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	@$(MAKE) --no-print-directory baked
	$(RUN) python tests/links.py . .baked/country-service
	@echo "== Checking the service: cd .baked/country-service && make check"
	@$(SERVICE) .baked/country-service check

bake: setup ## generate the default service into demo/, to look at
	$(call BAKE,demo)

clean: ## remove everything that make has written here, the data of the demo included
	rm -rf .baked demo .venv .tools .mypy_cache .pytest_cache .ruff_cache uv.lock

baked: setup
	@echo "== Generating the default service: .baked/country-service"
	$(call BAKE,.baked) >/dev/null

setup:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed, and $(PYTHON) is not. Name one: make PYTHON=python3.13 ..." >&2; exit 1; }
	@"$(UV)" --version >/dev/null 2>&1 || { \
	  echo "uv is not on PATH: installing it into .tools/"; \
	  "$(PYTHON)" -m venv .tools && .tools/bin/python -m pip install --quiet "uv>=0.9,<1"; }
	@[ -d .venv ] || echo "Installing what the template's tests need into .venv/ (the first time only)"
	@"$(UV)" sync --python "$(PYTHON)" $(if $(wildcard .venv),--quiet)
