# The ways to build and check qlora. `make` alone builds build/bin/qlora.
#
#   make build       system packages, LibTorch, the program        (scripts/bootstrap.sh says what it installs)
#   make quickstart  build, fetch a small model, fine-tune it, look at the difference
#   make test        build and run the tests
#   make cuda        the program with CUDA kernels, in build-cuda/bin/qlora (needs nvcc)
#   make interop     compare with PEFT, bitsandbytes and transformers, in a Python environment of its own
#   make bench       build and run the benchmarks
#   make install     into PREFIX (default /usr/local), with LibTorch beside it
#   make format      clang-format over the sources;  make clean  removes what was built

BUILD ?= build
PREFIX ?= /usr/local
# One job a core, and 2 GB of memory a job: what the torch headers cost the compiler.
JOBS ?= $(shell awk -v cores=$$(nproc) '/MemAvailable/ {jobs = int($$2 / 2097152)} \
	END {print jobs < 1 ? 1 : jobs < cores ? jobs : cores}' /proc/meminfo)
CMAKE_FLAGS ?=
CTEST_FLAGS ?= --output-on-failure

.PHONY: build quickstart test cuda interop bench install format clean bootstrap
.DEFAULT_GOAL := build

bootstrap:
	@scripts/bootstrap.sh

build: bootstrap
	cmake -S . -B $(BUILD) -G Ninja $(CMAKE_FLAGS)
	cmake --build $(BUILD) --parallel $(JOBS) --target qlora

quickstart:
	@scripts/quickstart.sh

test: bootstrap
	cmake -S . -B $(BUILD) -G Ninja $(CMAKE_FLAGS)
	cmake --build $(BUILD) --parallel $(JOBS)
	cd $(BUILD) && ctest $(CTEST_FLAGS)

cuda:
	@scripts/bootstrap.sh --cuda
	cmake --preset cuda $(CMAKE_FLAGS)
	cmake --build --preset cuda --parallel $(JOBS) --target qlora

interop: build
	@tests/interop/run.sh $(BUILD)/bin/qlora

bench: bootstrap
	cmake -S . -B $(BUILD) -G Ninja -DQLORA_BUILD_BENCH=ON $(CMAKE_FLAGS)
	cmake --build $(BUILD) --parallel $(JOBS)
	cmake --build $(BUILD) --target run_benchmarks

install: build
	cmake --build $(BUILD) --parallel $(JOBS)
	cmake --install $(BUILD) --prefix $(PREFIX)

format:
	git ls-files -z '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -0 clang-format -i

clean:
	rm -rf build build-*/
