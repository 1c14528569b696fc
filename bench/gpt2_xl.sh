#!/usr/bin/env bash
# What the weights of GPT-2 XL take: unquantized in float32, in int8, and in NF4 (6.2, 1.6 and 1.2 GB). By `qlora plan`, and as loaded and
# trained for one step, on made weights:
#
#   bench/gpt2_xl.sh TOKENIZER FOLDER
#
# TOKENIZER: a model's directory or .gguf file, for its tokenizer, with 50257 tokens at most. FOLDER takes the made model (6.3 GB), which the
# next run uses again, rows and runs. Needs 10 GB of memory and bench programs (make bench).
set -euo pipefail
tokenizer=$(realpath "$1") folder=$2
bin=$(realpath "${BUILD:-$(dirname "$0")/../build}/bin")
. "$(dirname "$0")/make_base.sh"
mkdir -p "$folder" && folder=$(realpath "$folder")

make_base "$folder/xl" "$tokenizer" "$(cat <<JSON
{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new", "n_ctx": 1024, "n_embd": 1600, "n_head": 25,
 "n_layer": 48, "n_positions": 1024, "vocab_size": 50257, "layer_norm_epsilon": 1e-5}
JSON
)" --method none --dtype float32
for i in $(seq 1 100); do
  printf '{"text": "Row %d of a hundred: the quick brown fox jumps over %d lazy dogs, one after the other, until it is tired."}\n' "$i" "$i"
done >"$folder/rows.jsonl"

# measure TITLE METHOD DTYPE
measure() {
  rm -rf "$folder/run"
  cat >"$folder/recipe.yaml" <<YAML
model: {path: $folder/xl, dtype: $3}
quantization: {$2}
lora: {rank: 8, alpha: 16, targets: all-linear}
data: {train: [{path: $folder/rows.jsonl, format: text}], sequence_length: 64}
train: {max_steps: 1, micro_batch_size: 1, gradient_checkpointing: true, device: cpu}
output: {dir: $folder/run}
YAML
  echo "== $1"
  "$bin/qlora" plan "$folder/recipe.yaml" --no-time | grep -E '^ +(base weights|quantization scales|embedding, head)'
  "$bin/qlora" train "$folder/recipe.yaml" >"$folder/log.txt" 2>&1 || { cat "$folder/log.txt"; exit 1; }
  grep -E 'base model|memory:' "$folder/log.txt"
}
measure "float32" "method: none" float32
measure "int8, the rest in float16" "method: int8" float16
measure "NF4, the rest in float32" "method: nf4, double_quant: false" float32
measure "NF4 with double quantization, the rest in float16" "method: nf4" float16
