#!/usr/bin/env bash
# What LoftQ repairs before any training: the weights' error and the distance of the logits from the 16-bit model, beside plain NF4.
#
#   bench/loftq.sh PROGRAM MODEL ROWS FOLDER PYTHON
#
# MODEL and ROWS as in bench/bases.sh; PYTHON has transformers (bench/peers/kl.py measures with it). FOLDER takes runs and exports.
set -euo pipefail
program=$1 model=$(realpath "$2") rows=$(realpath "$3") folder=$4 python=$5
mkdir -p "$folder"
for init in default loftq; do
  rm -rf "$folder/run-$init" "$folder/$init"
  cat >"$folder/recipe.yaml" <<YAML
model: {path: $model}
quantization: {method: nf4}
lora: {rank: 16, alpha: 32, init: $init}
data: {train: [{path: $rows/train.jsonl}], sequence_length: 512}
optim: {warmup_steps: 2}
train: {max_steps: 1, micro_batch_size: 1}  # the first step of the warm-up has rate zero
output: {dir: $folder/run-$init}
YAML
  "$program" train "$folder/recipe.yaml" 2>&1 | grep 'relative error' || true
  "$program" export "$folder/run-$init" --format merged --dtype float32 --output "$folder/$init" >"$folder/log.txt" 2>&1
done
"$python" "$(dirname "$0")/peers/kl.py" "$model" "$rows/eval.jsonl" "$folder/default" "$folder/loftq"
