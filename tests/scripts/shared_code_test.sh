#!/usr/bin/env bash
# Functions that the linker may take from any object file (weak symbols: inline functions, templates) must not be compiled for a wider
# instruction set than the baseline: the copy that is kept could be a kernel file's, and run where its instructions do not exist.
#
#   shared_code_test.sh BUILD     looks into the objects of all *_cpu.cpp files (baseline x86-64 has no instruction that begins with v
#                                 but verr, verw, vmcall and the like)
set -euo pipefail
cd "$1"
[ "$(uname -m)" = x86_64 ] || { echo "no x86-64: nothing to check"; exit 0; }
objects=0
found=""
while IFS= read -r object; do
  objects=$((objects + 1))
  weak=$(nm --defined-only "$object" | awk '$2 == "W" || $2 == "V" || $2 == "u" { print $3 }')
  [ -n "$weak" ] || continue
  wide=$(objdump -d --no-show-raw-insn "$object" | awk -v weak="$weak" '
    BEGIN { count = split(weak, names, "\n"); for (i = 1; i <= count; ++i) is_weak[names[i]] = 1 }
    /^[0-9a-f]+ <.*>:$/ { name = substr($2, 2, length($2) - 3); next }
    (name in is_weak) && $2 ~ /^(v[abcdefghijklmnopqstuxz]|k(mov|or|and|test|not|shift))/ && !told[name]++ { print name }')
  for name in $wide; do found+="$object: $(c++filt "$name")"$'\n'; done
done < <(find . -path ./tests -prune -o -name '*_cpu.cpp.o' -print | sort)
[ "$objects" -ge 10 ] || { echo "only $objects kernel objects below $1: this check looks in the wrong place" >&2; exit 1; }
if [ -n "$found" ]; then
  printf 'compiled for a wider instruction set than the linker knows:\n%s' "$found" >&2
  exit 1
fi
echo "$objects objects: no shared function is compiled for a wider instruction set"
