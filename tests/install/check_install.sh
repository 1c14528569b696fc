#!/usr/bin/env bash
# Installs a finished build into a temporary folder, builds the programs that use the package there, and
# runs them and the installed qlora. LibTorch stays where the build found it.
#
#   tests/install/check_install.sh BUILD_DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --component qlora --prefix "$work/prefix" >"$work/log" || { cat "$work/log"; exit 1; }
"$work/prefix/bin/qlora" --help >/dev/null
for file in bash-completion/completions/qlora zsh/site-functions/_qlora fish/vendor_completions.d/qlora.fish man/man1/qlora-train.1; do
  [ -s "$work/prefix/share/$file" ] || { echo "$file was not installed"; exit 1; }
done
# build SOURCE: its program, in $work and its name
build() {
  local place
  place=$work/$(basename "$1")
  cmake -S "$1" -B "$place" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_BUILD_TYPE=Release &&
    cmake --build "$place"
}
build "$here/../../examples/own_model" >"$work/own_model.log" 2>&1 &
own_model=$!
build "$here/consumer"
"$work/consumer/consumer"
wait "$own_model" || { cat "$work/own_model.log"; exit 1; }
# The second one is in 8 bit and finds the files of the first; the third reads the same weights from a file of torch.save.
"$work/own_model/own_model" "$work/files" | tee "$work/made.txt"
"$work/own_model/own_model" "$work/files" "$work/files/made.safetensors" int8
"$work/consumer/torch_file_of" "$work/files/made.safetensors" "$work/pytorch_model.bin"
"$work/own_model/own_model" "$work/files" "$work/pytorch_model.bin" | diff "$work/made.txt" -
