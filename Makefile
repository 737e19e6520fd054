# The three commands: make demo, make test, make clean. Both of the first build on `make venv`.

VENV := .venv
BIN := $(VENV)/bin
IN_RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
# The first Python that will do; say PYTHON=… to choose another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(IN_RANGE)' 2>/dev/null && echo $$python && break; done)
# `make demo ARGS='--for 20s'`
ARGS ?=

.PHONY: venv demo test peers clean

# Everything the project's commands need, in .venv; again when pyproject.toml changes.
venv: $(VENV)/.done

$(VENV)/.done: pyproject.toml
	@$(PYTHON) -c '$(IN_RANGE)' 2>/dev/null || { \
		echo "make: needs Python 3.11, 3.12 or 3.13; install one (Debian: apt-get install python3 python3-venv)" \
			"or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory python3-venv
	@echo "making $(VENV): a minute or two"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[sim,postgres,tor,test]'
	@touch $@

# Debian keeps what `python3 -m venv` needs in a package of its own.
.PHONY: python3-venv
python3-venv:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; fi
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: $(PYTHON) has no venv module; as root: apt-get install python3-venv" >&2; exit 1; }

demo: venv
	$(BIN)/lnsim demo $(ARGS)

# The real peers of the interop tests. One that is missing is named here; its tests are skipped, in CI they fail.
peers: venv
	-PYTHON=$(abspath $(BIN)/python) tests/interop/install.sh

# What tox calls done, and one closing line for all of its test runs.
test: venv peers
	@rm -rf .tox/reports
	@status=0; PYTEST_ADDOPTS="$$PYTEST_ADDOPTS -qq" $(BIN)/tox run -e lint,types,unit,interop,cluster || status=$$?; \
		$(BIN)/python .ci/closing_line.py .tox/reports/*.xml || status=1; exit $$status

clean:
	rm -rf $(VENV) .venv-* .peers .tox .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
	rm -rf tests/interop/*/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
