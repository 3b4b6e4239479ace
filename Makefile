# Everything here works on a fresh Linux machine with Python 3.11 or 3.12: make help
set_up = @for python in $(PYTHON) python3 python3.12 python3.11; do \
	$$python -c '' 2>/dev/null && exec $$python tools/set_up.py $(1); done; \
	echo 'There is no Python that runs: install python3, or try make PYTHON=python3.12 ...' >&2; exit 1

help:           ## explain these targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

run: setup      ## run Part 1, from PyTorch to predictions on pictures
	.venv/bin/python -m tools.run_series 00 01 02 03 04 05 06 07 08

run-all: setup  ## run every lesson
	.venv/bin/python -m tools.run_series

project: setup  ## write lesson 08 as programs: make project FOLDER=~/tagger
	.venv/bin/python -m new_project "$(FOLDER)"

lab: setup      ## open the notebooks in JupyterLab
	.venv/bin/jupyter lab --LabApp.default_url=/lab/tree/notebooks

check: dev      ## ruff, and the tests without a server; two minutes in all
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/pytest -m "not slow and not server" tests

test: dev       ## run every lesson against its stored outputs, and the tests
	.venv/bin/pytest --nbval notebooks --ignore notebooks/solutions --durations 20
	.venv/bin/pytest -n 2 --dist loadfile -m "not slow" tests --durations 20

test-slow: dev  ## run the solutions, and the tests that are long or need a browser
	.venv/bin/pytest --nbval notebooks/solutions --durations 20
	.venv/bin/pytest -m slow tests --durations 20

site: dev       ## build the series as web pages, to read without JupyterLab
	.venv/bin/sphinx-build --fail-on-warning --keep-going --quiet -c docs . artifacts/site
	@echo 'Open artifacts/site/index.html'

benchmark: setup ## measure ResNet-50 on this machine, with repeats; some minutes
	.venv/bin/python -m tools.run_series 01 05
	.venv/bin/python -m tools.benchmark

clean:          ## remove what was installed and what the notebooks wrote
	rm -rf .venv .venv-triton artifacts
	rm -f model_repository/*/[0-9]*/model.onnx model_repository/*/[0-9]*/model.plan

setup:          ## install what the lessons need into .venv and .venv-triton
	$(call set_up)

dev:
	$(call set_up,--dev)

.PHONY: help run run-all project lab check test test-slow site benchmark clean setup dev
