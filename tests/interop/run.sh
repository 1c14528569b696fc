#!/usr/bin/env bash
# Compares the built programs with the pinned peers: runs each script here that has a line
#
#   # make interop: COMMAND
#
# COMMAND finds $PYTHON (has the peers), $BUILD (the build folder), $QLORA (the program) and $WORK (an empty folder).
# Scripts without the line only write golden files; their header says how.
#
#   tests/interop/run.sh BUILD_DIR [NAME...]      NAME: only these scripts, without .py
#
# INTEROP_PYTHON=PATH uses that interpreter instead of making .venv-interop. INTEROP_MODEL=DIR is the unquantized chat model that
# real losses and logits are compared on; by default the quickstart's, once that was fetched. INTEROP_FAMILIES are families.py's
# families and options; by default --first, one variant of each family, and empty all variants. INTEROP_FOLDER=DIR keeps what
# transformers and PEFT made of them for another run. INTEROP_PREQUANTIZED=DIR has directories that other tools quantized, with golden.json
# (prequantized.py); without it four scripts only say so.
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=$(realpath "${1:?the build folder is needed}")
QLORA=$BUILD/bin/qlora
shift

PYTHON=$(scripts/peers_python.sh "${INTEROP_PYTHON:-}")
quickstart_model=models/SmolLM2-135M-Instruct.Q4_1.gguf
if [ -z "${INTEROP_MODEL:-}" ] && [ -e "$quickstart_model" ]; then
  exported=$(mktemp -d)
  trap 'rm -rf "$exported"' EXIT
  INTEROP_MODEL=$exported/model
  "$QLORA" export --model "$quickstart_model" --format merged --output "$INTEROP_MODEL"
fi
export PYTHON BUILD QLORA WORK INTEROP_MODEL=${INTEROP_MODEL:-} INTEROP_FAMILIES=${INTEROP_FAMILIES---first}

scripts=()
for name in "${@:-*}"; do
  for script in tests/interop/$name.py; do
    [ -e "$script" ] || { echo "interop: no script $script" >&2; exit 2; }
    if grep -q '^# make interop: ' "$script"; then scripts+=("$script"); fi
  done
done

failed=()
for script in "${scripts[@]}"; do
  WORK=$(mktemp -d)
  start=$SECONDS
  printf '\n== %s\n' "$script"
  bash -euo pipefail -c "$(sed -n 's/^# make interop: //p' "$script")" </dev/null || failed+=("$script")
  echo "== $((SECONDS - start)) s"
  rm -rf "$WORK"
done
printf '\n'
[ ${#failed[@]} -eq 0 ] || printf 'failed: %s\n' "${failed[@]}"
echo "$((${#scripts[@]} - ${#failed[@]})) passed, ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ] && [ ${#scripts[@]} -gt 0 ]
