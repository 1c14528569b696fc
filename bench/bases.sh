#!/usr/bin/env bash
# Held-out loss after the same short training on each kind of base:
#
#   bench/bases.sh PROGRAM MODEL TRAIN_ROWS EVAL_ROWS FOLDER [SEEDS [STEPS]]
#
# MODEL is a directory of 16-bit weights. Prints a Markdown table: mean and spread over the seeds.
set -euo pipefail
program=$1 model=$(realpath "$2") train=$(realpath "$3") eval=$(realpath "$4") folder=$5 seeds=${6:-3} steps=${7:-31}
mkdir -p "$folder"

bases=("none|method: none|" "nf4|method: nf4, double_quant: false|" "nf4 + double quantization|method: nf4|"
  "fp4 + double quantization|method: fp4|" "int8, threshold 6|method: int8|"
  "int8, threshold 0|method: int8, threshold: 0|" "int8, weights only|method: int8_weight_only|"
  "LoftQ on nf4 + double quantization|method: nf4|, init: loftq")

echo "| base | evaluation loss, mean | least | most |"
echo "|---|---|---|---|"
for base in "${bases[@]}"; do
  IFS='|' read -r name quantization init <<<"$base"
  losses=()
  for seed in $(seq 1 "$seeds"); do
    run="$folder/run"
    rm -rf "$run"
    cat >"$folder/recipe.yaml" <<YAML
model: {path: $model}
quantization: {$quantization}
lora: {rank: 16, alpha: 32$init}
data: {train: [{path: $train}], eval: [{path: $eval}], sequence_length: 512}
optim: {name: adamw_8bit, lr: 3.0e-4, schedule: cosine, warmup_ratio: 0.05}
train: {max_steps: $steps, micro_batch_size: 1, gradient_accumulation_steps: 2, seed: $seed}
output: {dir: $run}
YAML
    "$program" train "$folder/recipe.yaml" >"$folder/log.txt" 2>&1
    losses+=("$(grep -o '"eval_loss":[ ]*[0-9.e-]*' "$run/metrics.jsonl" | tail -1 | grep -o '[0-9.e-]*$')")
  done
  printf '%s\n' "${losses[@]}" | sort -g | awk -v name="$name" '
    { sum += $1; least = NR == 1 ? $1 : least; most = $1 }
    END { printf "| %s | %.4f | %.4f | %.4f |\n", name, sum / NR, least, most }'
done
