#!/usr/bin/env bash
# What a build costs, in seconds of processor time (user and system), so that it does not depend on how many jobs run.
# cmake -DQLORA_TIME_COMPILER=ON puts the first form before each compilation and link; a build from nothing without a
# compiler cache (CCACHE_DISABLE=1) then leaves BUILD/compile_times.txt for the second.
#
#   scripts/compile_times.sh record FILE COMMAND...   runs COMMAND and appends "USER SYSTEM OUTPUT" to FILE
#   scripts/compile_times.sh print FILE [COUNT]       the sums, and the COUNT (10) dearest files
set -uo pipefail

record() {
  local file=$1 previous='' output='' word
  shift
  for word in "$@"; do
    [ "$previous" != -o ] || output=$word
    previous=$word
  done
  exec 3>&1 4>&2
  local TIMEFORMAT='%U %S' seconds status=0
  seconds=$({ time "$@" 1>&3 2>&4; } 2>&1) || status=$?
  [ -z "$output" ] || printf '%s %s\n' "$seconds" "$output" >>"$file"
  return $status
}

# "SECONDS KIND NAME": tests/CMakeFiles/test_io.dir/io/gguf_test.cpp.o is the file tests/io/gguf_test.cpp.
entries() {
  tr , . <"$1" | sed -E -e 's#CMakeFiles/qlora_precompiled_([a-z_]*)\.dir/[^ ]*\.[gp]ch$#precompiled/\1.h#' \
    -e 's#CMakeFiles/[^/ ]*\.dir/##' -e 's#\.o$##' | awk '
      {
        kind = $3 !~ /\.(c|cpp|cu|h)$/ ? "links" : $3 ~ /^(tests|bench)\// ? substr($3, 1, 5) : "program"
        printf "%.2f %s %s\n", $1 + $2, kind, $3
      }'
}

print() {
  local count=${2:-10}
  entries "$1" | awk '
    { all += $1; seconds[$2] += $1; number[$2]++ }
    END {
      printf "processor time of the build: %.0f s\n", all
      for (kind in seconds) printf "  %7.1f s  %s (%d)\n", seconds[kind], kind, number[kind]
    }'
  printf 'the %d dearest files\n' "$count"
  entries "$1" | grep -v ' links ' | sort -rn | awk -v count="$count" 'NR <= count {printf "  %7.1f s  %s\n", $1, $3}'
}

case ${1:-} in
  record | print) "$@" ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
