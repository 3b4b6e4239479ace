# Everything here works on a fresh Linux machine with Python 3.11 or 3.12.
PYTHON ?= python3

help:           ## explain these targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

run: setup      ## run the whole series; ends in predictions on pictures
	.venv/bin/python -m tools.run_series

test: setup     ## run every notebook against its stored outputs, and the tests
	.venv/bin/pytest --nbval notebooks tests

benchmark: setup ## measure ResNet-50 on this machine, with repeats; some minutes
	.venv/bin/python -m tools.run_series 01 05
	.venv/bin/python -m tools.benchmark

lab: setup      ## open the notebooks in JupyterLab
	.venv/bin/jupyter lab notebooks

site: .venv/ready ## build the series as web pages, to read without JupyterLab
	.venv/bin/sphinx-build --fail-on-warning --keep-going --quiet -c docs . artifacts/site
	@echo 'Open artifacts/site/index.html'

clean:          ## remove what was installed and what the notebooks wrote
	rm -rf .venv .venv-triton artifacts
	rm -f model_repository/*/[0-9]*/model.onnx model_repository/*/[0-9]*/model.plan

setup: .venv/ready
	@.venv/bin/python -c "import embedded_triton; embedded_triton.install()"

.venv/ready: requirements.txt
	@$(PYTHON) -c "import sys; v = sys.version.split()[0]; (3, 11) <= sys.version_info < (3, 13) or sys.exit(f'found Python {v}: Python 3.11 or 3.12 is needed; try: make PYTHON=python3.12 ...')"
	@echo 'Installing into .venv: 7 GB, some minutes the first time'
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install --quiet --requirement requirements.txt
	.venv/bin/pip install --quiet --no-deps --no-build-isolation --editable .
	touch .venv/ready

.PHONY: help run test benchmark lab site clean setup
