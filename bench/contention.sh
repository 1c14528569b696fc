#!/usr/bin/env bash
# Tokens a second of training steps alone and beside busy processes, by how long waiting threads spin (base/short_waits.h).
# The settings take turns within a round, so that what else goes on in the machine meets all of them alike. The processor's fair
# share beside as many busy processes as threads is a half.
#
#   bench/contention.sh [ROUNDS] [-- ARGUMENTS OF bench_train_step]
#   BUSY=1 SETTINGS="ours GOMP_SPINCOUNT=1000" bench/contention.sh 5 -- --model 135m --sequence 512 --threads 2
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=3
if [[ ${1:-} =~ ^[0-9]+$ ]]; then rounds=$1 && shift; fi
[ "${1:-}" != -- ] || shift
[ $# -gt 0 ] || set -- --model 135m --sequence 512 --threads 2
program=${BUILD:-build}/bin/bench_train_step
busy=${BUSY:-2}
# ours: as the program sets it; GOMP_SPINCOUNT=300000 is what libgomp does by itself.
read -r -a settings <<<"${SETTINGS:-ours GOMP_SPINCOUNT=300000 OMP_WAIT_POLICY=passive}"
work=$(mktemp -d)
busy_ids=()
stop_busy() { [ ${#busy_ids[@]} -eq 0 ] || kill "${busy_ids[@]}"; busy_ids=(); }
trap 'stop_busy; rm -rf "$work"' EXIT

start_busy() {
  local i
  for ((i = 0; i < busy; ++i)); do
    sh -c 'while :; do :; done' &
    busy_ids+=($!)
  done
}

# measure SETTING FILE ARGUMENTS...: appends tokens a second.
measure() {
  local setting=$1 file=$2 environment=()
  shift 2
  [ "$setting" = ours ] || environment=("$setting")
  env "${environment[@]}" "$program" --no-floor --steps "${STEPS:-6}" "$@" |
    sed -n 's/.*"tokens_per_second":\([0-9.]*\).*"load_seconds":\([0-9.]*\).*/\1 \2/p' >>"$file"
}

# median FILE COLUMN
median() { awk -v c="$2" '{print $c}' "$1" | sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

uptime
for ((round = 1; round <= rounds; ++round)); do
  for i in "${!settings[@]}"; do measure "${settings[i]}" "$work/quiet$i" "$@"; done
  start_busy
  for i in "${!settings[@]}"; do measure "${settings[i]}" "$work/busy$i" "$@"; done
  stop_busy
done 2>/dev/null
uptime

printf '\n%-26s %12s %12s %8s %14s %14s\n' "medians of $rounds" "alone tok/s" "beside $busy" share "loads alone s" "beside $busy s"
for i in "${!settings[@]}"; do
  alone=$(median "$work/quiet$i" 1) beside=$(median "$work/busy$i" 1)
  printf '%-26s %12s %12s %8s %14s %14s\n' "${settings[i]}" "$alone" "$beside" \
    "$(awk "BEGIN {printf \"%.0f %%\", 100 * $beside / $alone}")" "$(median "$work/quiet$i" 2)" "$(median "$work/busy$i" 2)"
done
