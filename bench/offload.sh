#!/usr/bin/env bash
# One training step of 512 tokens on a 7B base in NF4 (4 GB) whose blocks lie on disk, within a limit of memory:
#
#   bench/offload.sh TOKENIZER FOLDER [LIMIT]
#   KIND=plain bench/offload.sh TOKENIZER FOLDER none     # all blocks in memory, without a limit, to compare
#
# TOKENIZER: a model's directory or .gguf file, for its tokenizer, with VOCABULARY=49152 tokens at most. FOLDER takes the made base,
# which the next run uses again, rows and runs. LIMIT: such as 2G (the default), set by systemd-run --user, or by a control group where
# this user may make one; with neither the step runs unlimited, and the script says so. Needs bench programs (make bench).
# Prints the step's time, and the most that the process had resident: all of it, and without pages of files.
set -euo pipefail
tokenizer=$(realpath "$1") folder=$2 limit=${3:-2G}
bin=$(realpath "${BUILD:-$(dirname "$0")/../build}/bin")
. "$(dirname "$0")/memory_limit.sh"
. "$(dirname "$0")/make_base.sh"
mkdir -p "$folder" && folder=$(realpath "$folder")

make_base "$folder/base" "$tokenizer" "$(cat <<JSON
{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
 "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": ${VOCABULARY:-49152}, "max_position_embeddings": 4096,
 "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true}
JSON
)"

rm -rf "$folder/run"
for i in $(seq 1 200); do
  printf '{"text": "Row %d of two hundred: the quick brown fox jumps over %d lazy dogs, one after the other, until it is tired."}\n' "$i" "$i"
done >"$folder/rows.jsonl"
cat >"$folder/recipe.yaml" <<YAML
model: {path: $folder/base$([ "${KIND:-disk}" = plain ] || echo ", device_map: disk")}
lora: {rank: 8, alpha: 16, targets: all-linear}
data: {train: [{path: $folder/rows.jsonl, format: text}], sequence_length: 512}
train: {max_steps: 1, micro_batch_size: 1, gradient_checkpointing: true, device: cpu}
output: {dir: $folder/run}
YAML

limit_memory "$limit"
trap lift_limit EXIT
failed=0
peak=$(measured "$folder/log.txt" "$bin/qlora" train "$folder/recipe.yaml") || failed=$?
grep -E 'base model|step +1/|memory:|error' "$folder/log.txt" || true
echo "$peak"
exit "$failed"
