# Needs only Python 3.10 to 3.12 with pip. Everything else is installed into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

OLDEST := .venv-oldest

# What building the documentation writes.
GENERATED := docs/_build docs/api/generated docs/gallery

# Concrete-Numpy has no builds for later Pythons. pyenv's python3.10 may be there and not run.
CONCRETE_NUMPY := .venv-concrete-numpy
PYENV_ROOT ?= $(HOME)/.pyenv
PYTHON310 ?= $(firstword $(foreach python,python3.10 $(wildcard $(PYENV_ROOT)/versions/3.10.*/bin/python),$(shell $(python) -c 'import sys; print(sys.executable)' 2>/dev/null)))

.PHONY: demo test test-pages test-oldest test-concrete-numpy python310 versions lint types docs notebooks package clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

# Most tests use one core. What measures time or memory runs by itself. Tests of one file share what
# is slow to make, so one process runs them. Processes whose libraries compute in several threads
# would wait for each other. TESTS chooses files.
IN_TWO_PROCESSES := -m "not alone" --numprocesses 2 --dist loadfile

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m alone $(or $(TESTS),tests docs)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(IN_TWO_PROCESSES) \
		$(or $(TESTS),--ignore tests/pages tests src)

# The code of README, documentation, examples and notebooks.
test-pages: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not alone" tests/pages docs

# Tests of what depends on other packages, at their oldest versions. The oldest concrete-python is
# the newest too, so the tests of circuits need not run again.
test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest tests/estimators tests/cli/test_cli.py \
		tests/deployment/test_preprocessing.py tests/deployment/test_untrusted_types.py \
		tests/inspection/test_card.py tests/program/test_ladder.py \
		--deselect 'tests/program/test_ladder.py::test_ciphertexts_give_the_clear_result['

# What encrypts, and what computes with torch, of which this environment has the oldest release.
ON_CONCRETE_NUMPY := tests/circuit tests/lowering tests/nn tests/program tests/training src docs

test-concrete-numpy: $(CONCRETE_NUMPY)/.installed
	$(CONCRETE_NUMPY)/bin/python -m pytest -m alone tests/circuit
	OMP_NUM_THREADS=1 $(CONCRETE_NUMPY)/bin/python -m pytest $(IN_TWO_PROCESSES) $(ON_CONCRETE_NUMPY)

python310:
	@echo $(PYTHON310)

# Of what cipherlearn depends on, in VENV.
versions:
	@$(BIN)/python -c 'import platform, re, importlib.metadata as m; print(f"Python {platform.python_version()}", *sorted(f"{name} {m.version(name)}" for name in (re.match(r"[\w.-]+", r)[0] for r in m.requires("cipherlearn") if "extra ==" not in r)), sep=", ")'

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# From nothing, so that every example of the gallery runs and no page of a former build is left. To
# look at text, sphinx-build -D plot_gallery=0 is quicker.
docs: $(VENV)/.installed-dev
	rm -rf $(GENERATED)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

# Run the scripts of the notebooks, and write what they print and draw into the notebooks.
notebooks: $(VENV)/.installed-test
	$(BIN)/python tests/notebooks.py

# The wheel comes out of the source distribution. It is used outside this tree, and compared with
# the wheel of the tree.
package: $(VENV)/.installed-dev
	rm -rf build dist
	$(BIN)/python -m build --outdir dist . >/dev/null
	$(BIN)/python -m build --no-isolation --wheel --outdir build/tree . >/dev/null
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tests/check_package.py

clean:
	rm -rf $(VENV) $(OLDEST) $(CONCRETE_NUMPY) build dist $(GENERATED)

$(BIN)/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v < (3, 13) else f"cipherlearn needs Python 3.10 to 3.12, got {v[0]}.{v[1]}. Name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-test: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

$(OLDEST)/.installed: pyproject.toml constraints/oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints/oldest.txt --editable '.[test]'
	touch $@

$(CONCRETE_NUMPY)/.installed: pyproject.toml constraints/concrete-numpy.txt
	test -n "$(PYTHON310)" || { echo "The Concrete-Numpy engine needs Python 3.10, and none was found. Name one: make test-concrete-numpy PYTHON310=python3.10" >&2; exit 1; }
	$(PYTHON310) -m venv $(CONCRETE_NUMPY)
	$(CONCRETE_NUMPY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement constraints/concrete-numpy.txt --editable .
	$(CONCRETE_NUMPY)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints/concrete-numpy.txt 'hypothesis>=6.100' 'pandas<3' 'pytest>=8' 'pytest-timeout>=2.3' 'pytest-xdist>=3.5'
	touch $@
