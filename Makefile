# `make` lists the targets. Everything runs inside .venv, which the targets make for themselves.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
LOCK = uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11 pyproject.toml --group build

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

install: .venv/installed  ## make .venv with the offhook command, from locked and hashed requirements

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "offhook needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ echo "Could not make .venv. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

run: install  ## start Offhook with simulated conferences (Ctrl-C stops all of it)
	@exec $(BIN)/offhook run --demo

test: .venv/installed-dev  ## run the whole test suite; it starts what it needs
	$(BIN)/python -m pytest

check: .venv/installed-dev  ## linter, formatter, strict types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed-dev  ## measure Offhook beside what one would write instead
	$(BIN)/python -m bench

chaos: .venv/installed-dev  ## kill, stop, starve and mislead private Offhooks, and hold them to their promises (half an hour)
	$(BIN)/python -m tests.chaos

screenshots: .venv/installed-dev  ## renew docs/screenshots (needs Chromium)
	$(BIN)/python -m tests.browser.screenshots

fmt: .venv/installed-dev  ## format and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:  ## renew the locked requirements (needs uv)
	$(LOCK) -o requirements.lock
	$(LOCK) --group dev -o requirements-dev.lock

clean:  ## remove .venv and what tools left behind; never .offhook, which holds your conferences
	rm -rf tests/system/sdk/node_modules bench/peers/express/node_modules .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.PHONY: help install run test check bench chaos screenshots fmt lock clean
