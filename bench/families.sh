#!/usr/bin/env bash
# Training steps of every kind of block at SmolLM2-135M's size, on made weights: tokens a second, the
# share of each kind's own floor, and that share against Llama's.
#
#   bench/families.sh build/bin/bench_train_step [--steps 6] [--sequence 512] ...
set -euo pipefail
program=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

gqa='"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
     "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "tie_word_embeddings": true,
     "max_position_embeddings": 8192'
mha='"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 2304, "num_hidden_layers": 30,
     "num_attention_heads": 9, "num_key_value_heads": 9, "tie_word_embeddings": true, "max_position_embeddings": 8192'
gpt='"vocab_size": 49152, "n_embd": 576, "n_layer": 30, "n_head": 9, "n_positions": 8192'

kind() { # NAME KEYS
  printf '{"model_type": "%s", %s}\n' "${1%%-*}" "$2" > "$folder/$1.json"
  "$program" --model "$folder/$1.json" "${@:3}" 2> /dev/null
}

run_all() {
  kind llama "$gqa" "$@"
  kind mistral "$gqa, \"sliding_window\": 256" "$@"
  kind ministral3 "$gqa" "$@"
  kind qwen2 "$gqa" "$@"
  kind qwen3 "$gqa" "$@"
  kind smollm3 "$gqa" "$@"
  kind granite "$gqa, \"residual_multiplier\": 0.22, \"embedding_multiplier\": 12, \"logits_scaling\": 8" "$@"
  kind olmo "$gqa, \"clip_qkv\": 8" "$@"
  kind olmo2 "$gqa" "$@"
  kind olmo3 "$gqa, \"sliding_window\": 256" "$@"
  kind gemma "$gqa" "$@"
  kind gemma2 "$gqa, \"sliding_window\": 256" "$@"
  kind gemma3_text "$gqa, \"sliding_window\": 256" "$@"
  kind phi3 "$gqa" "$@"
  kind glm "$gqa" "$@"
  kind glm4 "$gqa" "$@"
  kind cohere "$gqa" "$@"
  kind cohere2 "$gqa, \"sliding_window\": 256" "$@"
  kind stablelm "$gqa, \"use_qkv_bias\": true, \"qk_layernorm\": true" "$@"
  kind arcee "$mha" "$@"
  kind starcoder2 "$mha" "$@"
  kind phi "$mha" "$@"
  kind gpt2 "$gpt" "$@"
  kind gptj "$gpt, \"rotary_dim\": 32" "$@"
  kind gpt_neo "\"vocab_size\": 49152, \"hidden_size\": 576, \"num_layers\": 30, \"num_heads\": 9,
    \"attention_types\": [[[\"global\", \"local\"], 15]]" "$@"
  kind gpt_neox "$mha" "$@"
  kind opt "\"ffn_dim\": 2304, $mha" "$@"
  kind opt-350m "\"ffn_dim\": 2304, \"do_layer_norm_before\": false, \"word_embed_proj_dim\": 288, $mha" "$@"
  kind bloom "\"vocab_size\": 49152, \"hidden_size\": 576, \"n_layer\": 30, \"n_head\": 9" "$@"
  kind falcon "$mha" "$@"
  kind falcon-grouped "$mha, \"new_decoder_architecture\": true, \"num_kv_heads\": 3" "$@"
  kind mpt "\"vocab_size\": 49152, \"d_model\": 576, \"n_layers\": 30, \"n_heads\": 9" "$@"
  # Half of the tokens pass either stack, whose layers together are as many as those of the others.
  kind t5 "\"vocab_size\": 49152, \"d_model\": 576, \"d_ff\": 1536, \"d_kv\": 64, \"num_heads\": 9, \"num_layers\": 15,
    \"num_decoder_layers\": 15, \"feed_forward_proj\": \"gated-gelu\", \"tie_word_embeddings\": false" "$@"
  # Two of eight experts of half the width have the active parameters of the dense one.
  kind mixtral "${gqa/1536/768}, \"num_local_experts\": 8, \"num_experts_per_tok\": 2" "$@"
  kind qwen3_moe "$gqa, \"moe_intermediate_size\": 192, \"num_experts\": 32, \"num_experts_per_tok\": 8" "$@"
  # Half of the active parameters are those of an expert that every token uses.
  kind qwen2_moe "$gqa, \"moe_intermediate_size\": 192, \"shared_expert_intermediate_size\": 768, \"num_experts\": 16,
    \"num_experts_per_tok\": 4" "$@"
  kind granitemoe "${gqa/1536/768}, \"num_local_experts\": 8, \"num_experts_per_tok\": 2" "$@"
  kind olmoe "${gqa/1536/384}, \"num_experts\": 16, \"num_experts_per_tok\": 4" "$@"
  kind gpt_oss "${gqa/1536/768}, \"num_local_experts\": 8, \"num_experts_per_tok\": 2, \"sliding_window\": 256" "$@"
}

run_all "$@" | awk '
  function value(key,   at) { at = index($0, "\"" key "\":"); return at ? substr($0, at + length(key) + 3) + 0 : 0 }
  { name = $0; sub(/.*\//, "", name); sub(/\.json.*/, "", name)
    share = value("share_of_floor"); speed = value("tokens_per_second")
    if (NR == 1) { llama = share; llama_speed = speed; print "| block | tokens/s | share of its floor | against Llama: share, speed |\n|---|---|---|---|" }
    printf "| %s | %.0f | %.3f | %.2f, %.2f |\n", name, speed, share, share / llama, speed / llama_speed; fflush() }'
