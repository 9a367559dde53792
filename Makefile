PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/pip install --constraint constraints.txt
NATIVE_SOURCES := $(wildcard kernels/*.cpp kernels/*.hpp kernels/*/cpu.cpp)
PARTS := engine kernels training benchmarks

.PHONY: install demo test lint typecheck clean

install: $(VENV)/.installed

# torch comes first and alone: its exact version decides which build the index offers, and nothing that is
# resolved later may pull in another one. The build tools come from the same constraints, hence no isolation.
$(VENV)/.installed: pyproject.toml constraints.txt CMakeLists.txt Makefile $(NATIVE_SOURCES)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) cmake nanobind ninja scikit-build-core
	$(PIP) --no-build-isolation --editable '.[all,dev]'
	touch $@

demo: install
	mkdir -p out
	$(VENV)/bin/zellige panorama planet --size 8192x --memory 512MiB --seed 3 --out out/planet.tif --preview out/planet.png
	@echo "The panorama is out/planet.tif; out/planet.png is a reduced copy."

test: install
	$(VENV)/bin/python -m pytest -n 2

lint: install typecheck
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

typecheck: install
	rm -rf build/typing
	mkdir -p build/typing/zellige
	ln -s $(abspath $(wildcard zellige/*.py zellige/py.typed) $(PARTS)) build/typing/zellige/
	$(VENV)/bin/mypy

clean:
	rm -rf build dist out .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks $(VENV)/.installed
