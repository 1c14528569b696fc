#!/usr/bin/env bash
# Tokens a second of two ranks of one thread and of one process of two threads, which train the same recipe: two sequences of 512 tokens a
# step. They take turns, so that what else goes on in the machine meets both alike.
#
#   bench/ranks.sh [MODEL [ROUNDS]]        # MODEL: models/SmolLM2-135M-Instruct.Q4_1.gguf, which make quickstart fetches
#   STEPS=10 SEQUENCE=256 bench/ranks.sh my-model 5
#
# A model of made weights does as well: build/bin/made_base --config 135m --tokenizer TOKENIZER --output base (make bench builds it).
set -euo pipefail
model=${1:-$(dirname "$0")/../models/SmolLM2-135M-Instruct.Q4_1.gguf} rounds=${2:-3}
[ -e "$model" ] || { echo "bench/ranks.sh: $model is not there; name a model, or run make quickstart" >&2; exit 2; }
model=$(realpath "$model")
qlora=$(realpath "${BUILD:-$(dirname "$0")/../build}/bin/qlora")
work=$(mktemp -d)
ranks=()
clean_up() {
  [ ${#ranks[@]} -eq 0 ] || kill "${ranks[@]}" 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE

for i in $(seq 1 400); do
  printf '{"text": "Row %d of four hundred: the quick brown fox jumps over %d lazy dogs, one after the other, until it is tired."}\n' "$i" "$i"
done >"$work/rows.jsonl"
cat >"$work/recipe.yaml" <<YAML
model: {path: $model}
lora: {rank: 16, alpha: 32, targets: all-linear}
data: {train: [{path: $work/rows.jsonl, format: text}], sequence_length: ${SEQUENCE:-512}}
train: {max_steps: ${STEPS:-6}, micro_batch_size: 1, gradient_accumulation_steps: 2, save_every: 0, device: cpu}
output: {dir: $work/run}
YAML

# one_process, two_ranks FLAGS...: `qlora train` to its end.
one_process() {
  "$qlora" train "$work/recipe.yaml" --overwrite --set train.threads=2 >"$work/log.0" 2>&1 || { cat "$work/log.0" >&2; exit 1; }
}
two_ranks() {
  local rank
  ranks=()
  for rank in 0 1; do
    RANK=$rank WORLD_SIZE=2 MASTER_PORT=${MASTER_PORT:-29500} \
      "$qlora" train "$work/recipe.yaml" --overwrite --set train.threads=1 "$@" >"$work/log.$rank" 2>&1 &
    ranks+=($!)
  done
  for rank in 0 1; do wait "${ranks[rank]}" || { cat "$work/log.$rank" >&2; exit 1; }; done
  ranks=()
}

# Of the run's steps but the first, which makes kernels: tokens by their seconds.
tokens_per_second() {
  sed -nE 's/.*"tokens":([0-9]+).*"step_seconds":([0-9.e-]+).*/\1 \2/p' "$work/run/metrics.jsonl" |
    awk 'NR > 1 {tokens += $1; seconds += $2} END {printf "%.1f\n", tokens / seconds}'
}
median() { sort -g "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

uptime
printf '%-8s %24s %24s\n' round "one process, 2 threads" "2 ranks of one thread"
for ((round = 1; round <= rounds; ++round)); do
  one_process
  tokens_per_second >"$work/now" && cat "$work/now" >>"$work/process"
  two_ranks
  tokens_per_second >>"$work/ranks"
  printf '%-8s %24s %24s\n' "$round" "$(cat "$work/now")" "$(tail -n 1 "$work/ranks")"
done
uptime
process=$(median "$work/process") ranks_median=$(median "$work/ranks")
printf '%-8s %24s %24s   ratio %s\n' median "$process" "$ranks_median" "$(awk "BEGIN {printf \"%.2f\", $ranks_median / $process}")"

# What rank 0's profile says of the time between the ranks.
two_ranks --profile 3
grep -E '^(stage|communication|all) |^adding the ranks' "$work/log.0" ||
  { echo "bench/ranks.sh: no profile in the log of rank 0; it takes STEPS of 5 at least" >&2; exit 1; }
