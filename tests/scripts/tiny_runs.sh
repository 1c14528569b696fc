# For scripts that compare runs of write_tiny_run's recipe in the folder $work; sourced, not run.
# shellcheck shell=bash disable=SC2154

fail() { echo "FAILED: $*" >&2; exit 1; }

# A port of this machine that nobody listens on, below those that connections are given.
free_port() {
  local port
  while :; do
    port=$((10000 + RANDOM % 20000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

# lines RUN: of metrics.jsonl so far.
lines() { if [ -e "$work/$1/metrics.jsonl" ]; then wc -l <"$work/$1/metrics.jsonl"; else echo 0; fi; }

# wait_for_lines RUN NUMBER PID: while that process runs, two minutes at most.
wait_for_lines() {
  local end=$((SECONDS + 120))
  until [ "$(lines "$1")" -ge "$2" ]; do
    kill -0 "$3" 2>/dev/null || fail "$1 ended after $(lines "$1") lines of metrics.jsonl: $(tail -n 3 "$work/$1".*)"
    [ "$SECONDS" -lt "$end" ] || fail "$1 has $(lines "$1") lines of metrics.jsonl after two minutes"
    sleep 0.01
  done
}

# expect_code CODE PID LOG
expect_code() {
  local code=0
  wait "$2" || code=$?
  [ "$code" -eq "$1" ] || fail "expected exit code $1, found $code: $(tail -n 5 "$3")"
}

# The lines of metrics.jsonl without what differs from one process to the next.
without_times() {
  sed -E 's/,"(tokens_per_second|step_seconds|eval_seconds|peak_memory_bytes)":[^,}]*//g' "$work/$1/metrics.jsonl"
}

# expect_same RUN OTHER: adapter, state of the optimizer and losses, byte for byte.
expect_same() {
  local last
  last=$(cd "$work/$1" && echo checkpoint-* | awk '{print $NF}')
  for file in adapter/adapter_model.safetensors "$last/optimizer.safetensors"; do
    cmp "$work/$1/$file" "$work/$2/$file" || fail "$file of $1 and $2 differ"
  done
  cmp <(without_times "$1") <(without_times "$2") || fail "metrics.jsonl of $1 and $2 differ"
}
