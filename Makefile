# Ansim: what a person types. `make` alone lists the targets.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
ROLES   = gateway reader city sim demo dev
SHELL   = /bin/bash
.DEFAULT_GOAL := help
.PHONY: help venv demo test bench lint wheel lock clean

help:  ## list the targets
	@echo "Ansim: a child-safety zone round a school. Targets:"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

# A stamp a lock file: a changed lock installs again, an unchanged one costs nothing.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Ansim needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) -V 2>&1). Next: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "cannot make a virtual environment. Next: apt-get install python3-venv"; exit 1; }

$(VENV)/.%.stamp: locks/%.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing what '$*' needs (pinned, hashes checked) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r locks/$*.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

venv: $(VENV)/.dev.stamp  ## set up .venv with everything a developer needs

demo: $(VENV)/.demo.stamp  ## a simulated school zone, the real gateway and the real city, live in the terminal
	@$(BIN)/ansim-sim demo $(DEMO)

test: $(VENV)/.dev.stamp  ## set everything up (mosquitto, chromium and nginx by apt where allowed) and run all tests
	@bash tests/apt.sh mosquitto chromium nginx
	@$(BIN)/python -m $(if $(PYTEST),pytest $(PYTEST),tests.halves)

bench: $(VENV)/.dev.stamp  ## measure speeds and sizes; writes bench-results.md and bench-results.json
	@$(BIN)/python -m tests.bench $(BENCH)

lint: $(VENV)/.dev.stamp  ## ruff, mypy --strict, and the firmware against its typings
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && \
	  $(BIN)/mypy --config-file firmware/mypy.ini \
	    --custom-typeshed-dir "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

wheel: $(VENV)/.dev.stamp  ## build the wheel and try it with each role's lock in a clean environment
	@bash tests/wheels.sh $(abspath $(BIN)/python)

lock:  ## pin again: write locks/*.txt from pyproject.toml (needs uv)
	@for role in $(ROLES); do uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-emit-package ansim --extra $$role pyproject.toml -o locks/$$role.txt; done

clean:  ## remove .venv and what runs left behind
	rm -rf $(VENV) run build *.egg-info bench-results.*
