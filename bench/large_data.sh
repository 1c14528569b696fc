#!/usr/bin/env bash
# A few training steps of a tiny model on rows whose tokens take more memory than the run may have:
#
#   bench/large_data.sh TOKENIZER FOLDER [LIMIT] [MEGABYTES]
#
# TOKENIZER: a model's directory or .gguf file, for its tokenizer, with VOCABULARY=49152 tokens at most. FOLDER takes the made base,
# MEGABYTES (480) of rows in JSON Lines, which the next run uses again, their tokens (five bytes each) and two runs. LIMIT: 512M or
# another one as in bench/memory_limit.sh. Needs bench programs (make bench). Both runs have data.cache: true, the first without a
# cache. Prints of each what it says of the cache, the steps and the most that it had resident.
set -euo pipefail
tokenizer=$(realpath "$1") folder=$2 limit=${3:-512M} megabytes=${4:-480}
bin=$(realpath "${BUILD:-$(dirname "$0")/../build}/bin")
. "$(dirname "$0")/memory_limit.sh"
. "$(dirname "$0")/make_base.sh"
mkdir -p "$folder" && folder=$(realpath "$folder")

make_base "$folder/base" "$tokenizer" "$(cat <<JSON
{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
 "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": ${VOCABULARY:-49152}, "max_position_embeddings": 1024,
 "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true}
JSON
)"

# Rows of some 200 tokens, of sentences in random order.
rows=$folder/rows-$megabytes.jsonl
if [ ! -e "$rows" ]; then
  awk -v bytes="${megabytes}000000" 'BEGIN {
    srand(1)
    n = split("fox dog river lamp paper stone cloud garden winter bridge", what, " ")
    m = split("sees keeps paints forgets carries follows", does, " ")
    for (i = 0; i < 500; ++i)
      said[i] = "The " what[int(n * rand()) + 1] " " does[int(m * rand()) + 1] " " int(1000 * rand()) " of the " what[int(n * rand()) + 1] "s. "
    for (row = 0; written < bytes; ++row) {
      text = "Row " row ". "
      for (i = 0; i < 18; ++i) text = text said[int(500 * rand())]
      line = "{\"text\": \"" text "\"}"
      written += length(line) + 1
      print line
    }
  }' >"$rows.part"
  mv "$rows.part" "$rows"
fi

cat >"$folder/recipe.yaml" <<YAML
model: {path: $folder/base}
lora: {rank: 4, alpha: 8, targets: all-linear}
data: {train: [{path: $rows, format: text}], sequence_length: 512, cache: true, cache_dir: $folder/cache}
train: {max_steps: 5, micro_batch_size: 1, device: cpu}
output: {dir: $folder/first}
YAML

rm -rf "$folder/cache" "$folder/first" "$folder/second"
limit_memory "$limit"
trap lift_limit EXIT
for run in first second; do
  failed=0
  peak=$(measured "$folder/$run.txt" "$bin/qlora" train "$folder/recipe.yaml" --set "output.dir=$folder/$run") || failed=$?
  printf '\n%s run\n' "$run"
  grep -E 'data cache|step +[0-9]+/|memory:|error' "$folder/$run.txt" || true
  echo "$peak"
  [ "$failed" -eq 0 ] || exit "$failed"
done
echo
ls -lL "$rows" | awk '{printf "rows: %.0f MB; ", $5 / 1e6}'
du -sm "$folder/cache" | awk '{print "their tokens: " $1 " MiB"}'
