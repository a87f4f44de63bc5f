# The two that matter: `make site` serves the finished site, `make test` proves it.
PYTHON ?= python3
BIN := .venv/bin
ADDRESS ?= 127.0.0.1:8000
export OMP_NUM_THREADS := 1
# Material prints a notice about MkDocs 2 on each start; it is pinned below 2 here.
export NO_MKDOCS_2_WARNING := 1

.PHONY: site test install build check record studies planted format clean help

site: .venv/served ## install what is needed and serve the finished site
	$(BIN)/mkdocs serve --strict --dev-addr $(ADDRESS)

test: install ## install what is needed and pass every test
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadgroup

install: .venv/installed ## install into .venv, exactly the versions of constraints.txt

# Compiling every file of every package takes longer than the site does; Python compiles what it needs.
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt

.venv/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or later is needed')"
	$(PYTHON) -m venv .venv

.venv/served: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e .
	touch $@

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[test]'
	touch $@ .venv/served

build: install ## build the site, strictly, into site/
	$(BIN)/mkdocs build --strict

check: install ## hold the site to all its rules; trains nothing
	$(BIN)/python -m snippets check

record: install ## run the pages whose code has changed and write their outputs
	$(BIN)/python -m snippets record --stale

studies: install ## run the longer studies again
	$(BIN)/python -m snippets study

planted: install ## plant each classic bug in its module; the module's test must catch it
	$(BIN)/python -m snippets.site.planted

format: install ## format and lint the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean: ## remove what was built and installed
	rm -rf .venv site .pytest_cache .ruff_cache

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10
