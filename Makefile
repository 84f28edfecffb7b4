PYTHON ?= python3
BIN := .venv/bin

# Tests start hundreds of processes, each of which would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install quickstart test test-oldest check bench bench-verdicts soak

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ablate needs Python 3.11 or newer; set PYTHON=…"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: install
	$(BIN)/ablate run studies/quickstart.yaml
	$(BIN)/ablate report quickstart

# Tests wait for processes and disks for a third of their time: three at once keep two cores busy.
test: install
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not slow"

# The same tests on the oldest versions that pyproject.toml declares. What only some tests need is left out, with those tests.
test-oldest: .venv-oldest/installed
	.venv-oldest/bin/python -m pytest -n 3 --dist worksteal -m "not slow"

.venv-oldest/installed: pyproject.toml constraints-oldest.txt
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e . \
		pytest pytest-xdist hypothesis statsmodels playwright jsonschema
	@touch $@

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

# What a run and a study cost. ABLATE_CIFAR10_DIR: a folder with train/<class>/* and test/<class>/*.
bench: install
	test -z "$$ABLATE_CIFAR10_DIR" || $(BIN)/python benchmarks/speed.py "$$ABLATE_CIFAR10_DIR"
	$(BIN)/python benchmarks/waiting.py $${ABLATE_CIFAR10_DIR:+--images "$$ABLATE_CIFAR10_DIR"}
	$(BIN)/python benchmarks/overhead.py --repeat 3
	$(BIN)/python benchmarks/report.py --json benchmarks/results/report.json
	$(BIN)/python benchmarks/judge.py
	$(BIN)/python benchmarks/judge.py --arms 10 --seeds 100000 --repeat 0 --form text

# What the verdicts are worth.
bench-verdicts: install
	$(BIN)/python benchmarks/verdicts.py
	$(BIN)/python benchmarks/designs.py
	$(BIN)/python benchmarks/replicates.py
	$(BIN)/python benchmarks/verdicts.py --real benchmarks/results/digits.csv --margin 0.02
	$(BIN)/python benchmarks/lr.py

soak: install
	$(BIN)/python -m pytest -m slow
	$(BIN)/python tests/faults/kills.py --rounds 100
	$(BIN)/python tests/faults/kills_by_phase.py --rounds 100
