# Everything a person or a machine calls. `make demo` and `make test` do all their set-up themselves.

PYTHON_IN_VENV := .venv/bin/python
DIR ?= playground
PORTS ?= 20250
# Most tests wait for a printer or a clock, so that more of them than there are processors go side by side.
WORKERS ?= 3

.PHONY: help setup demo test prove lint check format playground lock bench clean corpus-report

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

setup:  ## install what is missing: Debian packages (as root or with sudo) and .venv
	@.ci/setup

demo:  ## see the main job run: one letter out, three slips on paper
	@.ci/setup --without-clients
	@$(PYTHON_IN_VENV) -m tests.harness.demo

test: setup  ## all tests, WORKERS files of them at a time
	$(PYTHON_IN_VENV) -m pytest -n $(WORKERS) --dist loadfile

prove: setup  ## the long proofs, besides what `make test` shows
	$(PYTHON_IN_VENV) -m pytest -m prove
	$(PYTHON_IN_VENV) -m pytest -m hypothesis --hypothesis-profile=search
	$(PYTHON_IN_VENV) -m bench.million

lint: setup  ## format, lint, types, layers: half a minute
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

check: lint  ## the same and the unit tests
	$(PYTHON_IN_VENV) -m pytest -q -n $(WORKERS) --dist loadfile tests/unit

format: setup  ## put the code into the project's form
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

playground: setup  ## the appliance with printers, next hop and DNS: DIR=<empty folder> PORTS=<first port> [CONFIG=<file>]
	@exec $(PYTHON_IN_VENV) -m tests.harness.playground --dir="$(DIR)" --ports="$(PORTS)" $(if $(CONFIG),--config="$(CONFIG)")

bench: setup  ## a signature's cost, slip-relay beside Postfix + OpenDKIM, slips beside Chromium: a quarter of an hour, as root
	@.ci/setup-bench
	$(PYTHON_IN_VENV) -m bench.sign
	$(PYTHON_IN_VENV) -m bench.relay
	$(PYTHON_IN_VENV) -m bench.slips

lock: setup  ## write the lock files anew, with the newest versions
	.venv/bin/uv pip compile pyproject.toml --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --quiet -o requirements.txt
	.venv/bin/uv pip compile pyproject.toml --upgrade --group dev -c requirements.txt --universal --python-version 3.11 \
		--generate-hashes --no-header --quiet -o requirements-dev.txt

corpus-report: setup  ## Alma messages on A4, A5 and 80 mm, checked, with contact sheets to look at: [CORPUS=<folder>]
	@$(PYTHON_IN_VENV) -m tests.harness.corpus_report $(if $(CORPUS),--corpus="$(CORPUS)")

clean:  ## remove what the targets made
	rm -rf .venv demo-output corpus-report playground .mypy_cache .ruff_cache .pytest_cache .hypothesis
