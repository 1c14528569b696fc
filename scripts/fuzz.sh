#!/usr/bin/env bash
# Fuzzes the readers of bytes from outside (tests/fuzz) with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   scripts/fuzz.sh [TARGET...] [--seconds 60]    all targets, or these, so long each
#   scripts/fuzz.sh TARGET --input FILE           one input again, to see what goes wrong
#
# Inputs that reached something new are kept in build-fuzz/corpus/TARGET, those that found a fault in build-fuzz/findings. Ends with
# exit code 1 if a target found one. Needs clang for libFuzzer's runtime.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build-fuzz}
seconds=60 input="" targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --input) input=$(realpath "$2"); shift 2 ;;
    -*) echo "scripts/fuzz.sh: unknown option $1" >&2; exit 2 ;;
    *) targets+=("$1"); shift ;;
  esac
done

command -v clang >/dev/null || { echo "scripts/fuzz.sh needs libFuzzer: apt-get install clang" >&2; exit 2; }
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DQLORA_FUZZ=ON -DQLORA_BUILD_PROGRAM=OFF >/dev/null
cmake --build "$build" --parallel "$(scripts/jobs.sh)" --target fuzz
fuzz=$build/bin/fuzz
export OMP_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=0 UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1
[ ! -d /dev/shm ] || export TMPDIR=/dev/shm
if [ -n "$input" ]; then exec "$fuzz" --target="${targets[0]}" "$input"; fi
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <("$fuzz" --list)

mkdir -p "$build/findings"
status=0
printf '%-18s %12s %10s %9s %s\n' target executions "per second" "covered" findings
for target in "${targets[@]}"; do
  corpus=$build/corpus/$target log=$build/findings/$target.log
  mkdir -p "$corpus"
  "$fuzz" --target="$target" --seeds="$build/corpus/$target-seeds"
  found=none
  # -close_fd_mask=3: refusals and warnings would fill the log; the report of a fault is written all the same.
  "$fuzz" --target="$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -max_len=65536 -close_fd_mask=3 \
    -print_final_stats=1 -use_value_profile=0 -artifact_prefix="$build/findings/$target-" \
    -dict="$build/corpus/$target-seeds.dict" "$corpus" "$build/corpus/$target-seeds" >"$log" 2>&1 || found="see $log"
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
  covered=$(grep -o 'ft: [0-9]*' "$log" | tail -n 1 | cut -d' ' -f2)
  printf '%-18s %12s %10s %9s %s\n' "$target" "${executions:-?}" "${rate:-?}" "${covered:-?}" "$found"
  [ "$found" = none ] || status=1
done
exit $status
