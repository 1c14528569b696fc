#!/usr/bin/env bash
# Held-out loss after the same short training on each kind of base (docs/numerics.md has the table):
#
#   bench/bases.sh PROGRAM MODEL ROWS FOLDER [SEEDS [STEPS]]
#
# MODEL is a directory of 16-bit weights, ROWS a folder with train.jsonl and eval.jsonl (bench/held_out_orders.sh). Prints a
# Markdown table, a row a base: the loss before any training, after it with each seed, and mean and spread (largest less least) of
# those. FOLDER takes the runs. bench/peers/bases.py trains PEFT's models with the same settings.
set -euo pipefail
program=$1 model=$(realpath "$2") rows=$(realpath "$3") folder=$4 seeds=${5:-3} steps=${6:-24}
mkdir -p "$folder"

bases=("none|method: none|" "nf4|method: nf4, double_quant: false|" "nf4 + double quantization|method: nf4|"
  "fp4 + double quantization|method: fp4|" "int8, threshold 6|method: int8|"
  "int8, threshold 0|method: int8, threshold: 0|" "int8, weights only|method: int8_weight_only|"
  "LoftQ on nf4 + double quantization|method: nf4|, init: loftq")

# train BASE_FIELDS LORA_FIELDS SEED STEPS: prints the held-out loss of the end.
train() {
  local run="$folder/run"
  rm -rf "$run"
  cat >"$folder/recipe.yaml" <<YAML
model: {path: $model}
quantization: {$1}
lora: {rank: 16, alpha: 32$2}
data: {train: [{path: $rows/train.jsonl}], eval: [{path: $rows/eval.jsonl}], sequence_length: 512}
optim: {name: adamw, lr: 5.0e-4, schedule: linear, warmup_steps: 2}
train: {max_steps: $4, micro_batch_size: 1, seed: $3}
output: {dir: $run}
YAML
  "$program" train "$folder/recipe.yaml" >"$folder/log.txt" 2>&1 || { cat "$folder/log.txt" >&2; exit 1; }
  grep -o '"eval_loss":[ ]*[0-9.e-]*' "$run/metrics.jsonl" | tail -1 | grep -o '[0-9.e-]*$'
}

echo "| base | untrained | trained, by seed | mean | spread |"
echo "|---|---|---|---|---|"
for base in "${bases[@]}"; do
  IFS='|' read -r name quantization init <<<"$base"
  before=$(train "$quantization" "$init" 1 1) # a step of rate zero: the first of the warm-up
  for seed in $(seq 1 "$seeds"); do
    train "$quantization" "$init" "$seed" "$steps"
  done | awk -v name="$name" -v before="$before" '
    { sum += $1; each = each (NR > 1 ? ", " : "") sprintf("%.4f", $1) }
    NR == 1 || $1 < least { least = $1 }
    NR == 1 || $1 > most { most = $1 }
    END { printf "| %s | %.4f | %s | %.4f | %.4f |\n", name, before, each, sum / NR, most - least }'
done
