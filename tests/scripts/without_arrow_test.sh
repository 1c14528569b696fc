#!/usr/bin/env bash
# Configures the project with QLORA_PARQUET=OFF where there is no Apache Arrow, and checks that nothing is compiled then that includes a
# header of Arrow's or is told where they are. Nothing is built.
#
#   tests/scripts/without_arrow_test.sh BUILD_DIR      whose LibTorch and compilers are taken
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cache=$(realpath "$1")/CMakeCache.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cached() { sed -n "s/^$1:[A-Z]*=//p" "$cache"; }

cmake -S "$root" -B "$work" -G Ninja -DQLORA_PARQUET=OFF -DQLORA_ARROW_ROOT="$work/no-arrow" \
  -DQLORA_TORCH_ROOT="$(cached QLORA_TORCH_ROOT)" \
  -DCMAKE_C_COMPILER="$(cached CMAKE_C_COMPILER)" -DCMAKE_CXX_COMPILER="$(cached CMAKE_CXX_COMPILER)" >"$work/log" 2>&1 ||
  { tail -n 20 "$work/log"; exit 1; }

cd "$root"
commands=$work/compile_commands.json
sed -n "s|^ *\"file\": \"$root/\(.*\)\",\{0,1\}\$|\1|p" "$commands" | sort -u >"$work/compiled"
compiled=$(wc -l <"$work/compiled")
[ "$compiled" -gt 500 ] || { echo "only $compiled files in compile_commands.json: this check reads it wrongly" >&2; exit 1; }
find base io quant data lora optim model distributed trainer export recipes cli tests -name '*.h' -not -path '*/arrow/*' >"$work/headers"
{
  grep -oE '[^ ]*(pyarrow|QLORA_PARQUET|no-arrow)[^ ]*' "$commands" | sort -u || true
  grep -E '(^|/)arrow/' "$work/compiled" || true
  # Includes that do not ask for QLORA_PARQUET.
  cat "$work/compiled" "$work/headers" | xargs -d '\n' awk '
    FNR == 1 { asked = 0 }
    /^#ifdef QLORA_PARQUET/ { asked = 1 }
    /^#(else|endif)/ { asked = 0 }
    !asked && /^#include [<"](arrow|parquet|([a-z_]+\/)+arrow)\// { print FILENAME ":" FNR ": " $0 }'
} >"$work/faults"
if [ -s "$work/faults" ]; then
  echo "QLORA_PARQUET=OFF, and yet:" >&2
  cat "$work/faults" >&2
  exit 1
fi
echo "$compiled files are compiled with QLORA_PARQUET=OFF, and none sees a header of Arrow's"
