# `make demo` trains the default recipe end to end, `make test` runs the tests; both on a bare machine with Python 3.11.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint site news release clean

demo: .venv/.installed
	$(BIN)/temper run tiny

test: .venv/.tested
	@$(BIN)/python -m compileall -q src # or each of the processes that tests start would do it
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/.dev
	$(BIN)/ruff check src tests bench
	$(BIN)/pyright src

# the documentation as a site, in site/; a link that leads nowhere ends it
site: .venv/bin/python
	$(BIN)/python -m pip install --quiet "zensical>=0.0.70,<0.2"
	$(BIN)/zensical build --clean --strict

# what the fragments in news/ come to; with VERSION=0.2.0 they are moved into CHANGELOG.md
news: .venv/bin/python
	$(BIN)/python -m pip install --quiet "towncrier>=24.8"
	$(BIN)/towncrier build $(if $(VERSION),--yes --version $(VERSION),--draft --version next)

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

.venv/.tested: .venv/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	@touch $@

.venv/.dev: .venv/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]" "ruff>=0.9" "pyright>=1.1.390"
	@touch $@

# sdist, then the wheel from the sdist: as an index gets them
release: .venv/bin/python
	$(BIN)/python -m pip install --quiet build
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

clean:
	rm -rf .venv build dist site
