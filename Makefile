# The ways to build and check qlora. `make` alone builds build/bin/qlora.
#
#   make build       system packages, LibTorch, the program        (scripts/bootstrap.sh says what it installs)
#   make quickstart  build, fetch a small model, fine-tune it, look at the difference
#   make test        build and run the tests
#   make build-cost  build all from nothing without a compiler cache, in build-cost/; say what processor time it took
#   make cuda        the program with CUDA kernels, in build-cuda/bin/qlora (needs nvcc)
#   make interop     compare with PEFT, bitsandbytes and transformers, in a Python environment of its own
#                    (INTEROP_FAMILIES= all variants of all model families; "gpt2 opt" those of these two)
#   make fuzz        feed the readers of files with broken ones (needs clang; FUZZ_FLAGS="gguf --seconds 600")
#   make bench       build and run the benchmarks
#   make peers       beside PEFT, bitsandbytes and transformers on the CPU (bench/peers/README.md)
#   make install     into PREFIX (default /usr/local), with LibTorch beside it
#   make package     an archive and a .deb for machines without a compiler, in BUILD/packages
#   make format      clang-format over the sources;  make clean  removes what was built

BUILD ?= build
PREFIX ?= /usr/local
# As many as cores and memory allow, also in a container.
JOBS ?= $(shell scripts/jobs.sh)
CMAKE_FLAGS ?=
# OFF: without Apache Arrow, for a program that reads no Parquet files.
QLORA_PARQUET ?= ON
export QLORA_PARQUET
ifneq ($(QLORA_PARQUET),ON)
override CMAKE_FLAGS += -DQLORA_PARQUET=$(QLORA_PARQUET)
endif
# Two at a time: many use all cores, but only for moments.
CTEST_FLAGS ?= --output-on-failure --parallel 2

.PHONY: all build build-cost quickstart test fuzz cuda interop bench peers install package format clean bootstrap
.DEFAULT_GOAL := build

bootstrap:
	@scripts/bootstrap.sh

build: bootstrap
	cmake -S . -B $(BUILD) -G Ninja $(CMAKE_FLAGS)
	cmake --build $(BUILD) --parallel $(JOBS) --target qlora

quickstart:
	@scripts/quickstart.sh

# The program, the tests and what they drive.
all: bootstrap
	cmake -S . -B $(BUILD) -G Ninja $(CMAKE_FLAGS)
	cmake --build $(BUILD) --parallel $(JOBS)

test: all
	cd $(BUILD) && ctest $(CTEST_FLAGS)

build-cost:
	rm -rf build-cost
	@CCACHE_DISABLE=1 $(MAKE) --no-print-directory all BUILD=build-cost CMAKE_FLAGS="-DQLORA_TIME_COMPILER=ON $(CMAKE_FLAGS)"
	@scripts/compile_times.sh print build-cost/compile_times.txt

cuda:
	@scripts/bootstrap.sh --cuda
	cmake --preset cuda $(CMAKE_FLAGS)
	cmake --build --preset cuda --parallel $(JOBS) --target qlora

# One variant of each model family; tests/interop/run.sh has more settings.
INTEROP_FAMILIES ?= --first
interop: all
	@INTEROP_FAMILIES="$(INTEROP_FAMILIES)" tests/interop/run.sh $(BUILD)

FUZZ_FLAGS ?=
fuzz: bootstrap
	@scripts/fuzz.sh $(FUZZ_FLAGS)

# Measures alone: a machine that also compiles or trains gives other numbers.
bench:
	@$(MAKE) --no-print-directory all CMAKE_FLAGS="-DQLORA_BUILD_BENCH=ON $(CMAKE_FLAGS)"
	@for program in $(BUILD)/bin/bench_*; do echo "== $$program"; $$program || exit 1; done

peers:
	@$(MAKE) --no-print-directory all CMAKE_FLAGS="-DQLORA_BUILD_BENCH=ON $(CMAKE_FLAGS)"
	@BUILD=$(BUILD) bench/peers/run.sh gates || echo "a gate is not met: the figures do not count"
	@BUILD=$(BUILD) bench/peers/run.sh

install: build
	cmake --install $(BUILD) --prefix $(PREFIX)

package: build
	@scripts/package.sh $(BUILD)

format:
	git ls-files -z '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -0 clang-format -i

clean:
	rm -rf build build-*/
