# Everything happens in .venv of this folder; each target sets it up first.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help sandbox test lint types live format clean

help:  ## say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name it with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

sandbox: .venv/.installed  ## run the service with LiteLLM and Backstage stand-ins
	$(BIN)/python -m litellm_plugin.sandbox

test: .venv/.installed  ## run the default test suite
	$(BIN)/python -m pytest -n 2

lint: .venv/.installed  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed  ## check types
	$(BIN)/mypy

live: .venv/.installed  ## test against the real LiteLLM and Backstage of ../shared
	$(BIN)/python -m pytest -m live tests/live

format: .venv/.installed  ## put the code in form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what the targets made
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
