#!/usr/bin/env bash
# Prints the Python interpreter that has the peers (PEFT, bitsandbytes, transformers, ...): the given one, or that of .venv-interop in
# the project's root, which is made first if it is missing or of other versions.
#
#   scripts/peers_python.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
requirements=tests/interop/requirements.txt
python=${1:-}
if [ -z "$python" ]; then
  python=$PWD/.venv-interop/bin/python
  if ! cmp -s "$requirements" .venv-interop/installed.txt; then
    echo "making .venv-interop (several GB; once)" >&2
    rm -rf .venv-interop
    python3 -m venv .venv-interop || { echo "python3-venv is needed (apt-get install python3-venv)" >&2; exit 1; }
    "$python" -m pip install --quiet --no-cache-dir -r "$requirements" >&2
    cp "$requirements" .venv-interop/installed.txt
  fi
fi
echo "$python"
