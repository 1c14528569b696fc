#!/usr/bin/env bash
# Installs a finished build into a temporary folder, builds a program against the package there, and runs it
# and the installed qlora. LibTorch stays where the build found it.
#
#   tests/install/check_install.sh BUILD_DIR
set -euo pipefail
consumer=$(cd "$(dirname "$0")" && pwd)/consumer
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --component qlora --prefix "$work/prefix" >"$work/log" || { cat "$work/log"; exit 1; }
"$work/prefix/bin/qlora" --help >/dev/null
cmake -S "$consumer" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_BUILD_TYPE=Release
cmake --build "$work/build"
"$work/build/consumer"
