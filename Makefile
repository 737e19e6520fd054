PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: venv demo test clean

# Everything the project's commands need, in .venv; rebuilt when pyproject.toml changes.
venv: $(VENV)/.done

$(VENV)/.done: pyproject.toml
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), f"needs Python 3.11 to 3.13, not {sys.version.split()[0]}; say PYTHON=python3.12 make venv"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[sim,test]'
	touch $@
