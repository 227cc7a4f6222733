# CoSine mesh: what a developer does, by name. `make` alone lists it. Needs Python 3.11, make and a package registry.

PYTHON ?= python3.11
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt
# Two stamps: what running needs, and on top of it what checking needs. They are made again when the pins change.
RUNNING := $(VENV)/.running
CHECKING := $(VENV)/.checking
CODE := $(wildcard cosine services testbed bench scripts)

.DEFAULT_GOAL := help
.PHONY: help venv demo test check lint types contracts style protos baseline testbed bench bench-paper sim clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' \
		| while IFS='|' read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done
	@echo "  ARGS='...' passes arguments on to demo, test, testbed, bench, bench-paper and sim."

venv: $(CHECKING)  ## build .venv with everything that development needs (once)

$(PY):
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing; install it or say make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUNNING): pyproject.toml constraints.txt | $(PY)
	@echo "Installing the mesh and its engine into $(VENV) (once; PyTorch is the large part)"
	$(PIP) -e '.[mesh,engine]'
	@touch $@

$(CHECKING): $(RUNNING)
	$(PIP) -e '.[mesh,engine,dev]'
	@touch $@

demo: $(RUNNING)  ## run a whole mesh on this machine and compare it with plain decoding
	$(PY) -m cosine.cli.demo $(ARGS)

test: $(CHECKING)  ## run the tests
	$(PY) -m pytest $(ARGS)

check: lint types contracts style  ## lint, types, contracts and the style rules

lint: $(CHECKING)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(CHECKING)
	$(PY) -m mypy $(addprefix -p ,$(CODE))

contracts: $(CHECKING)
	$(VENV)/bin/buf lint protos
	$(VENV)/bin/buf breaking protos --against protos/baseline.binpb
	$(PY) scripts/generate_protos.py --check

style: $(CHECKING)
	$(PY) -m pytest tests/style

protos: $(CHECKING)  ## generate cosine/v1 from protos/
	$(PY) scripts/generate_protos.py

baseline: $(CHECKING)  ## take today's protos as the wire that must not break
	$(VENV)/bin/buf build protos --exclude-source-info -o protos/baseline.binpb

testbed: $(CHECKING)  ## train the small models of the test bed
	$(PY) -m testbed $(ARGS)

bench: $(CHECKING)  ## compare strategies, and transformers beside them (STRATEGIES=all for every preset)
	$(PY) -m bench $(if $(STRATEGIES),--strategies "$(STRATEGIES)") $(ARGS)

bench-paper: $(CHECKING)  ## compare all strategies at the speed of the paper's hardware, for the same money
	$(PY) -m bench.paper $(ARGS)

sim: $(CHECKING)  ## play all strategies in virtual time on a park of machines (ARGS="--sweep all": how it scales)
	$(PY) -m cosine.sim $(ARGS)

clean:  ## remove caches and build outputs; .venv stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
