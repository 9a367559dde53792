PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/pip install --constraint constraints.txt
NATIVE_SOURCES := $(wildcard kernels/*/*.cpp kernels/*/*.hpp)
FOLDERS := cli engine kernels export training benchmarks
EMOJI := /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf /usr/share/unicode/emoji/emoji-test.txt

# The package as links, so that engine/ is found as zellige.engine without an installation.
layout = rm -rf $(1) && mkdir -p $(1)/zellige && ln -s $(abspath $(wildcard zellige/*.py zellige/py.typed) $(FOLDERS)) $(1)/zellige/

.PHONY: install emoji demo test gpu lint typecheck kernels sanitize clean

install: $(VENV)/.installed

# torch comes first and alone: its exact version decides which build the index offers, and nothing that is
# resolved later may pull in another one. The build tools come from the same constraints, hence no isolation.
$(VENV)/.installed: pyproject.toml constraints.txt CMakeLists.txt Makefile $(NATIVE_SOURCES)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) cmake nanobind ninja scikit-build-core setuptools
	$(PIP) --no-build-isolation --editable '.[all,dev]'
	touch $@

# Pictures and names of the emoji scenes, for Debian and as root; elsewhere a folder with both files, named by
# ZELLIGE_EMOJI, does as well. Without them the tests of these scenes are skipped.
emoji:
	@ls $(EMOJI) >/dev/null 2>&1 || { apt-get -q update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -q install --yes --no-install-recommends fonts-noto-color-emoji unicode-data; }

demo: install
	mkdir -p out
	$(VENV)/bin/zellige panorama planet --size 8192x --memory 512MiB --seed 3 --out out/planet.tif --preview out/planet.png --overwrite
	@echo "The panorama is out/planet.tif; out/planet.png is a reduced copy."

# Two processes of two threads on two cores: threads that wait for others sleep. Each process takes whole files, whose
# fixtures it then makes once, and helps the other at the end. Ray leaves threads and handlers of signals in a process that
# has joined a cluster, so its tests have a process of their own.
RAY = tests/engine/panorama/workers/test_ray.py
test: install
	OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python -m pytest -n 2 --dist worksteal --ignore $(RAY)
	$(VENV)/bin/python -m pytest $(RAY)

# With the Python at hand, because a machine with a GPU may have no network to install from. PARTS and OUT choose what
# is done and where the JSON goes. Without the safe path the folder zellige/ would be taken for the package.
gpu: OUT ?= benchmarks/results/gpu
gpu:
	@$(call layout,build/source)
	@PYTHONSAFEPATH=1 PYTHONPATH="$(abspath build/source)$${PYTHONPATH:+:$$PYTHONPATH}" \
	  $(PYTHON) -m zellige.benchmarks.gpu $(if $(PARTS),--parts $(PARTS)) --out $(OUT)

lint: install typecheck
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

typecheck: install
	$(call layout,build/typing)
	$(VENV)/bin/mypy

# Every Triton kernel for A100 and H100, and as plugins of TensorRT for all GPUs, with a cache of its own: kernels that were compiled before prove nothing.
kernels: install
	rm -rf build/kernels build/kernels-cache
	TRITON_CACHE_DIR=build/kernels-cache $(VENV)/bin/python -m zellige.kernels.triton.compile --arch 80 --arch 90 --out build/kernels
	TRITON_CACHE_DIR=build/kernels-cache $(VENV)/bin/python -m zellige.export.plugins.assemble
	rm -rf build/kernels-cache

# The C++ kernels under AddressSanitizer. Python's own leaks are not looked for. The C++ library is loaded first too, or
# the sanitizer would not find the function that throws. Products are narrow, as where there is no AVX-512: the other
# tests have them wide.
sanitize: install
	$(VENV)/bin/cmake -G Ninja -S . -B build/sanitize -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja -DPython_EXECUTABLE=$(abspath $(VENV))/bin/python \
	  -DCMAKE_CXX_FLAGS="-fsanitize=address -fno-omit-frame-pointer -DZELLIGE_NARROW"
	$(VENV)/bin/cmake --build build/sanitize
	ZELLIGE_NATIVE=$$(ls build/sanitize/_native*.so) \
	  LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python -m pytest -q tests/kernels -k native

clean:
	rm -rf build dist out .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks $(VENV)/.installed
