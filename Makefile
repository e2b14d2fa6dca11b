# `make serve` and `make test` each do everything on a machine with Python 3.11 or 3.12 and make.
# ARGS reaches the command: make serve ARGS="--port 9000", make test ARGS="-k mark -x".

PYTHON    ?= $(shell for p in python3.11 python3.12 python3; do $$p -c "" 2>/dev/null && echo $$p && break; done)
VENV      := .venv
BIN       := $(VENV)/bin
PIP       := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/installed
TORCH     := torch==2.13.0
MEDIAPIPE := mediapipe==0.10.21
ARGS      ?=

.PHONY: setup serve test test-agents bench lint clean
.DELETE_ON_ERROR:

setup: $(INSTALLED)

# Runs again only when pyproject.toml, or this file with its two pins, changes.
# torch comes first and pinned: where pip is configured with a CPU build of that very version, pip
# prefers it. From plain PyPI on Linux it brings the CUDA packages along, some gigabytes.
# mediapipe comes without its dependencies: pyproject.toml says why, and lists the real ones.
$(INSTALLED): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
	    { echo "Visavis needs Python 3.11 or 3.12, but PYTHON is '$(PYTHON)'. Try: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo 'Setting up $(VENV): a few minutes and about 2 GB the first time.'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q $(TORCH)
	$(PIP) install -q --no-warn-conflicts -e '.[dev]'
	$(PIP) install -q --no-deps $(MEDIAPIPE)
	$(BIN)/python -c 'import cv2, mediapipe'
	@touch $@

serve: $(INSTALLED)
	$(BIN)/visavis serve $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest $(ARGS)

# pipecat and LiveKit Agents cannot live beside the server's protobuf: they get an environment of their own, two minutes
# and about 1 GB the first time. The server that the tests speak to runs in ours.
AGENTS := .venv-agents
$(AGENTS)/installed: client/agents/pyproject.toml Makefile
	$(PYTHON) -m venv $(AGENTS)
	$(AGENTS)/bin/python -m pip install -q './client/agents[pipecat,livekit]' 'pytest>=9,<10' 'pytest-asyncio>=1.2,<2'
	@touch $@

test-agents: $(INSTALLED) $(AGENTS)/installed
	VISAVIS_SERVER_PYTHON=$(CURDIR)/$(BIN)/python $(AGENTS)/bin/python -m pytest tests/client/agents $(ARGS)

# Takes about an hour, with nothing else running. For a try: make bench ARGS="--seconds 10".
bench: $(INSTALLED)
	$(BIN)/python -m tools.performance_page --out docs/performance.md $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(AGENTS) build .pytest_cache .mypy_cache .ruff_cache *.egg-info
