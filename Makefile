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

# A virtual environment serves one minor version of Python at one path, and is whole only when pip is in it; any other is
# made anew. `command` of pyvenv.cfg names the path that it was made for; another tool than venv may not have written it.
WORN := $(shell [ -e $(VENV)/pyvenv.cfg ] || exit 0; \
  is=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || \
    { echo "its Python is gone"; exit; }; \
  was=$$(sed -n 's/^version\(_info\)\? *= *\([0-9]*\.[0-9]*\).*/\2/p' $(VENV)/pyvenv.cfg); \
  [ "$$is" = "$$was" ] || { echo "its Python is now $$is, and it was made for $$was"; exit; }; \
  at=$$(sed -n 's/^command *= .* -m venv //p' $(VENV)/pyvenv.cfg); \
  [ -n "$$at" ] || exit 0; \
  [ "$$at" -ef $(VENV) ] || { echo "it was made in another folder"; exit; }; \
  [ -e $(BIN)/pip ] || echo "it was not finished")
ANEW = $(if $(WORN),anew)
.PHONY: anew
anew:
	@echo "$(VENV) is of no use any more: $(WORN). It is made anew ..."
	@rm -rf $(VENV)

# A stamp a lock file: a changed lock installs again, an unchanged one costs nothing.
$(VENV)/bin/python: $(ANEW)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Ansim needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) -V 2>&1). Next: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "cannot make a virtual environment. Next: $$($(PYTHON) -c 'import ensurepip' 2>/dev/null && \
	    echo 'see above; a folder of yours with room, and one make at a time' || echo 'apt-get install python3-venv')"; exit 1; }

$(VENV)/.%.stamp: locks/%.txt pyproject.toml $(ANEW) | $(VENV)/bin/python
	@echo "installing what '$*' needs (pinned, hashes checked) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r locks/$*.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

venv: $(VENV)/.dev.stamp  ## set up .venv with everything a developer needs

demo: $(VENV)/.demo.stamp  ## a simulated school zone, the real gateway and the real city, live in the terminal
	@exec setpriv --pdeathsig TERM $(BIN)/ansim-sim demo $(DEMO)

test: $(VENV)/.dev.stamp  ## set everything up (mosquitto, chromium, nginx and caddy by apt, root or not) and run all tests
	@VENV=$(VENV) bash tests/apt.sh mosquitto chromium nginx caddy
	@$(BIN)/python -m $(if $(PYTEST),pytest $(PYTEST),tests.halves)

bench: $(VENV)/.dev.stamp  ## measure speeds and sizes; writes bench-results.md and bench-results.json
	@$(BIN)/python -m tests.bench $(BENCH)

lint: $(VENV)/.dev.stamp  ## ruff, mypy --strict, and the firmware against its typings
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && \
	  $(BIN)/mypy --config-file firmware/mypy.ini \
	    --custom-typeshed-dir "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

wheel: $(VENV)/.dev.stamp  ## build one wheel a role into build/wheels and try each with its lock in a clean environment
	@bash tests/wheels.sh $(abspath $(BIN)/python)

lock:  ## pin again: write locks/*.txt from pyproject.toml (needs uv)
	@for role in $(ROLES); do uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-emit-package ansim --extra $$role pyproject.toml -o locks/$$role.txt; done

clean:  ## remove .venv and what runs left behind
	@for held in run/demo-*/held; do [ ! -e $$held ] || flock -n $$held true || \
	  { echo "a demo runs in $${held%/held}; end it first"; exit 1; }; done
	rm -rf $(VENV) run build *.egg-info bench-results.*
