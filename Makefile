# Everything happens in .venv of this folder; each target sets it up first.
PYTHON ?= python3
BIN := .venv/bin

# Keep compiled modules: the tests start many processes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help sandbox demo test deep faults browser screenshots lint types live live-all docs wheel package format fuzz lock audit licences clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

# All dependencies are locked with hashes; the checkout itself is installed as it is.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check

# The sandbox needs only the dependencies of a deployment, which install in a third of the time.
.venv/.run: pyproject.toml requirements/build.txt requirements/run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name it with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) --require-hashes -r requirements/build.txt -r requirements/run.txt
	@rm -rf litellm_plugin.egg-info  # it may list old entry points
	@# Twice quiet, because setuptools prints a lot for editable installations.
	$(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.installed: .venv/.run requirements/dev.txt
	$(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

sandbox: .venv/.run  ## run the service with LiteLLM and Backstage stand-ins
	$(BIN)/python -m litellm_plugin sandbox

demo: .venv/.run demo/dist/index.html  ## the same with the frontend plugin's page, which needs Node 20
	$(BIN)/python -m litellm_plugin sandbox --demo demo/dist

demo/dist/index.html: demo/build.mjs demo/package-lock.json $(wildcard demo/src/*)
	@command -v node >/dev/null && command -v npm >/dev/null || \
		{ echo "The demo needs Node 20 or later, with npm; make sandbox does not." >&2; exit 1; }
	@node demo/build.mjs

WORKERS := -n logical --maxprocesses 4

test: .venv/.installed  ## run the default test suite
	$(BIN)/python -m pytest $(WORKERS)

deep: .venv/.installed  ## test with processes, and with many more made-up requests
	$(BIN)/python -m pytest $(WORKERS) -m "deep or hypothesis" --hypothesis-profile deep

faults: .venv/.installed  ## test a deployment while its upstreams fail
	$(BIN)/python -m pytest -m faults tests/faults

.venv/.browser: .venv/.installed requirements/browser.txt
	$(INSTALL) --require-hashes -r requirements/browser.txt
	@touch $@

browser: .venv/.browser  ## test the pages of the sandbox and the demo in Chromium
	$(BIN)/python -m pytest -m browser tests/browser

screenshots: .venv/.browser demo/dist/index.html  ## renew the pictures of the documentation
	$(BIN)/python -m tests.browser.screenshots

lint: .venv/.installed  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed  ## check types
	$(BIN)/mypy

live: .venv/.installed  ## test against the real LiteLLM and Backstage of ../shared
	$(BIN)/python -m pytest -m live --durations=20 tests/live

# The oldest supported version, the one of most observations, and the newest.
LITELLM_VERSIONS = 1.81.14 1.106.2 1.108.7

live-all: .venv/.installed  ## the same with each version of LiteLLM, before a release
	for version in $(LITELLM_VERSIONS); do \
		LIVE_EVERY_PAIR=1 LITELLM_VERSION=$$version $(BIN)/python -m pytest -m live tests/live || exit; done

docs: .venv/.installed  ## build the documentation into site/
	$(BIN)/python docs/configuration_page.py
	$(BIN)/python docs/routes_page.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@! grep -rnEo --include='*.html' --include='*.css' \
		'<(script|img|iframe)[^>]* src="?(https?:)?//[^>]*|<link[^>]* rel="?stylesheet[^>]* href="?(https?:)?//[^>]*|url\(["'"'"']?(https?:)?//[^)]*' site \
		|| { echo "a page loads something from another site" >&2; exit 1; }

wheel: .venv/.installed  ## build the wheel and the source distribution into dist/
	rm -rf build dist
	$(BIN)/python -m build --quiet --no-isolation >/dev/null

package: wheel .venv/.recipes  ## test the packages, and the files of deploy/
	$(BIN)/python -m pytest -m package tests/package
	$(BIN)/python -m pytest tests/deploy

.venv/.recipes: .venv/.installed requirements/deploy.txt
	$(INSTALL) --require-hashes -r requirements/deploy.txt
	@touch $@

format: .venv/.installed  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Without a wheel of atheris for this Python, its fuzz targets are skipped.
.venv/.fuzz: .venv/.installed requirements/fuzz.txt
	-$(INSTALL) --only-binary :all: --require-hashes -r requirements/fuzz.txt
	@touch $@

FUZZ_SECONDS ?= 90

fuzz: .venv/.fuzz  ## fuzz each target for FUZZ_SECONDS, two at a time
	$(BIN)/python -m fuzz.fuzz_run all --seconds $(FUZZ_SECONDS)

# Each lock keeps the releases it has, unless pyproject.toml forbids them: UPGRADE=--upgrade takes
# the newest, UPGRADE='--upgrade-package NAME' the newest of one. They hold for every Python from
# 3.11 on, and name no registry.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command 'make lock' $(UPGRADE)
BUILD_NEEDS := import tomllib; \
	print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'], sep='\n')

lock: .venv/.installed  ## update the locks after a change of pyproject.toml
	$(COMPILE) pyproject.toml --extra serve --extra redis --extra postgres -o requirements/run.txt
	$(COMPILE) pyproject.toml --extra dev -c requirements/run.txt -o requirements/dev.txt
	$(COMPILE) --group fuzz -o requirements/fuzz.txt
	$(COMPILE) --group deploy -c requirements/dev.txt -o requirements/deploy.txt
	$(COMPILE) --group browser -c requirements/dev.txt -o requirements/browser.txt
	$(BIN)/python -c "$(BUILD_NEEDS)" | $(COMPILE) - -o requirements/build.txt
	@$(MAKE) --no-print-directory licences

audit: .venv/.installed  ## look for known vulnerabilities of locked packages
	@# 75: the data could not be reached, which is printed, and is no failure.
	$(BIN)/python requirements/audit.py || [ $$? = 75 ]

LICENCES = $(BIN)/pip-licenses --packages $$(grep -oE '^[[:alnum:]._-]+' requirements/run.txt)

licences: .venv/.installed  ## list the licences of a deployment; refuse those that are not allowed
	@mkdir -p docs
	@$(LICENCES) >/dev/null && { cat requirements/licences.md && $(LICENCES); } >docs/licences.md

clean:  ## remove the files that the targets made
	rm -rf .venv build dist site demo/dist demo/node_modules *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis fuzz/.corpus
