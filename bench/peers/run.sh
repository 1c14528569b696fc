#!/usr/bin/env bash
# qlora beside PEFT, bitsandbytes, transformers and tokenizers on this machine's CPU: a Markdown table, and raw lines in a file.
#
#   bench/peers/run.sh [ROW...] [--rounds 3] [--steps 8] [--threads 2] [--output build/peers.md]
#   bench/peers/run.sh gates [--steps 20]         the conditions under which the figures count (gates.py)
#
# Needs the build with benchmarks and the quickstart's model:
#
#   cmake -S . -B build -G Ninja -DQLORA_BUILD_BENCH=ON
#   cmake --build build --target qlora make_orders bench_train_step interop_gradients
#
# PEERS_PYTHON=PATH uses that interpreter instead of making one with the peers from PyPI; BUILD=DIR another build folder; MODEL=FILE
# another GGUF file or model directory.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath "${BUILD:-build}")
gguf=$(realpath "${MODEL:-models/SmolLM2-135M-Instruct.Q4_1.gguf}")
for tool in qlora make_orders bench_train_step; do
  [ -x "$build/bin/$tool" ] || { echo "bench/peers: no $build/bin/$tool; the head of this script says how it is built" >&2; exit 1; }
done
python=$(scripts/peers_python.sh "${PEERS_PYTHON:-}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$build/bin/qlora" export --model "$gguf" --format merged --output "$work/model" >"$work/export.txt" 2>&1 || { cat "$work/export.txt" >&2; exit 1; }

script=bench/peers/compare.py
if [ "${1:-}" = gates ]; then
  script=bench/peers/gates.py
  shift
fi
"$python" "$script" --build "$build" --model "$work/model" --gguf "$gguf" --python "$python" --work "$work" "$@"
