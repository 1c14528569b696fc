#!/usr/bin/env bash
# Shows that check_layers.sh finds each kind of violation, and none in a tree that keeps the rules.
set -euo pipefail
check=$(cd "$(dirname "$0")" && pwd)/check_layers.sh
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
failures=0

# A tree that keeps every rule, and comes close to breaking some.
lay_tree() {
  rm -rf "${root:?}"/*
  mkdir -p "$root"/{base,io,quant,recipes,tests/quant,tests/recipes}
  echo '#include <ATen/ATen.h>' >"$root/base/dispatch.h"
  printf '#ifdef QLORA_CUDA\n#endif\n' >"$root/base/device.cpp"
  echo '#include "base/error.h"' >"$root/io/json.cpp"
  printf '#pragma once\n#include <cstdint>\n' >"$root/quant/nf4_kernels.h"
  printf '#include "base/dispatch.h"\n#include "quant/nf4_kernels.h"\n' >"$root/quant/nf4.cpp"
  printf '#include "quant/nf4_kernels.h"\nkernel<<<1, 1>>>();\n' >"$root/quant/nf4_cuda.cu"
  printf '#include "quant/nf4_kernels.h"\nfloat t = 0.6961928009986877f;  // no <<< here\n' >"$root/quant/nf4_cpu.cpp"
  echo '#include <yaml-cpp/yaml.h>' >"$root/recipes/recipe_yaml.cpp"
  printf '#include "recipes/recipe.h"\nfloat t = 0.6961928009986877f;\n#ifdef QLORA_CUDA\n' >"$root/tests/quant/nf4_test.cpp"
}

# expect WHAT STATUS TEXT
expect() {
  local output status=0
  output=$("$check" "$root" 2>&1) || status=1
  if [ "$status" != "$2" ] || [[ $output != *"$3"* ]]; then
    printf 'FAILED: %s\n  expected status %s and "%s", got status %s:\n%s\n' "$1" "$2" "$3" "$status" "$output"
    failures=$((failures + 1))
  else
    printf 'ok: %s\n' "$1"
  fi
}

# violates WHAT FILE LINE TEXT: LINE added to FILE is reported with TEXT.
violates() {
  lay_tree
  mkdir -p "$(dirname "$root/$2")"
  printf '%b\n' "$3" >>"$root/$2"
  expect "$1" 1 "$4"
}

lay_tree
expect "a tree that keeps the rules passes" 0 "no violations"
violates "a lower layer includes a higher one" io/json.cpp '#include "model/causal_lm.h"' \
  'io/json.cpp:2: io/ includes "model/causal_lm.h"; it may include: base'
violates "siblings keep apart" quant/nf4.cpp '#include "data/example.h"' 'quant/ includes "data/example.h"'
violates "base includes nothing" base/device.cpp '#include "io/json.h"' 'it may include: nothing'
violates "a library does not include the tests" io/json.cpp '#include "tests/support/temp_dir.h"' 'io/ includes "tests/'
violates "a library does not include the program" recipes/recipe_yaml.cpp '#include "cli/args.h"' 'recipes/ includes "cli/'
violates "spaces do not hide an include" io/json.cpp '  #  include "quant/nf4.h"' 'io/ includes "quant/nf4.h"'
violates "a way around the root" io/json.cpp '#include "../model/causal_lm.h"' 'name headers from the root'
violates "YAML outside recipes" io/json.cpp '#include <yaml-cpp/yaml.h>' 'yaml-cpp belongs to recipes/'
violates "a build switch outside base" quant/nf4.cpp '#if defined(QLORA_CUDA) && 1' 'QLORA_CUDA is asked in base/'
violates "a launch outside a kernel file" quant/nf4.cpp 'kernel<<<1, 1>>>();' 'kernels are launched in *_cuda.cu'
violates "a kernel file with another name" quant/nf4.cu 'int x;' 'is named *_cuda.cu'
violates "a second NF4 table" io/json.cpp 'double t = 0.6961928009986877;' 'a second NF4 table; the first is in'
violates "torch in a CUDA file" quant/nf4_cuda.cu '#include <c10/cuda/CUDAStream.h>' 'nf4_cuda.cu: a kernel file sees a torch header'
violates "torch in io" io/json.cpp '#include <c10/core/ScalarType.h>' 'io/json.cpp: a file of io/ or data/ sees a torch header'
violates "torch in data by a header of base" data/loader.cpp '#include "base/dispatch.h"' \
  'data/loader.cpp: a file of io/ or data/ sees a torch header, by base/dispatch.h:1'
violates "torch in a CPU kernel" quant/nf4_cpu.cpp '#include <ATen/ATen.h>' 'nf4_cpu.cpp: a kernel file sees a torch header'
violates "torch behind two headers" quant/nf4_kernels.h '#include "base/dispatch.h"' \
  'nf4_cuda.cu: a kernel file sees a torch header, by base/dispatch.h:1'

lay_tree
for _ in {1..201}; do echo; done >"$root/quant/nf4_kernels.h"
expect "a long header is a warning only" 0 "quant/nf4_kernels.h: warning: 201 lines, more than 200"

lay_tree
rm -rf "${root:?}"/*
expect "an empty tree is no success" 1 "no source folder"

[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
