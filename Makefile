# Every command works from a fresh clone, as root and as an ordinary user, in any directory, twice in a row:
# each first brings .venv to what requirements.txt says. Paths are relative, so that any path will do.
# Options for the command itself go into ARGS:  make test ARGS="-k redis"

PYTHON ?=
ARGS ?=
python := .venv/bin/python
candlefleet := $(python) -m app.cli.main

.DEFAULT_GOAL := help
.PHONY: help demo up test check bench fmt lock clean venv
MAKEFLAGS += --no-print-directory

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: venv ## Run the main job on embedded servers, with a summary
	@$(candlefleet) demo $(ARGS)

up: venv ## Keep everything running, Flower included, until Ctrl-C
	@$(candlefleet) up $(ARGS)

# Two processes, a file of tests each at a time: most tests wait for servers. One process: make test ARGS="-n 0"
# In the order of the folders: the long files come first, and the short ones of tests/unit fill up the end.
test: venv ## Run all tests: unit, integration, acceptance
	@$(python) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: venv ## Check style, types, import rules and pins, as continuous integration does
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy
	@$(python) -m mypy .ci/environment.py .ci/pins.py
	@$(python) -c 'from importlinter.cli import lint_imports_command as run; run()'
	@$(python) .ci/pins.py
	@sh -n .ci/venv && bash -n .ci/run

bench: venv ## Measure speed against plain Celery and the limit of the machine
	@$(candlefleet) bench $(ARGS)

fmt: venv ## Correct what can be corrected
	@$(python) -m ruff check --fix --exit-zero .
	@$(python) -m ruff format .

lock: ## Pin requirements.txt again from pyproject.toml (needs uv; ARGS=--upgrade for newer versions)
	@uv pip compile --universal --python-version 3.11 --generate-hashes --extra dev --extra freqtrade --no-annotate \
		--custom-compile-command "make lock" --quiet pyproject.toml -o requirements.txt $(ARGS)

clean: ## Remove .venv and caches; the data in .candlefleet stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.candlefleet/*' -prune -exec rm -rf {} +

venv:
	@PYTHON='$(PYTHON)' sh .ci/venv
