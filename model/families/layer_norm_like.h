// The families before Llama and beside it: LayerNorms, biases, an MLP without a gate, attention and
// MLP one after the other or side by side. Their numbers are Llama's, under names of their own.
#pragma once

#include "model/families/llama_like.h"

namespace qlora::model {

// What GPT-2, GPT-Neo, GPT-J, BLOOM and MPT have in common: MLPs of four times the hidden size,
// tied embeddings, no RoPE, no key for the size of a head or for key heads, layer_norm_epsilon.
LlamaDefaults gpt_defaults();
// n_embd, n_inner, n_layer, n_head, n_positions: of GPT-2 and GPT-J.
SizeKeys gpt2_size_keys();
// Keys of GPT-2's kind that are for other heads than a language model's.
void note_summary_keys(ConfigReader& config);
// "attn." + q_proj, k_proj, v_proj.
void name_queries_keys_values(Architecture& architecture, const std::string& prefix);

// LayerNorm with weight and bias in place of every norm of the stream.
void use_layer_norms(Architecture& architecture, bool bias = true);

// The MLP's `up` and `down` alone: down(act(up x)).
void use_plain_mlp(Architecture& architecture, const TensorNames& up, const TensorNames& down,
                   bool bias);

// Attention and MLP read the stream side by side, the MLP through a norm of its own or through
// attention's.
void put_side_by_side(Architecture& architecture, bool same_norm);

// Biases of queries, keys and values, and of what attention gives.
void set_attention_bias(Architecture& architecture, bool qkv, bool out);

// One matrix with the queries, keys and values of each key head below each other, which llama.cpp's
// files have in the order of fuse_qkv().
void fuse_qkv_in_groups(Architecture& architecture, const TensorNames& names);

// Attention that ALiBi's biases tell positions, instead of RoPE.
void use_alibi(Architecture& architecture, AlibiSpec alibi);

// Attention that is not told positions.
void leave_unrotated(Architecture& architecture);

// What a family of GPT's kind calls its modules in Hugging Face files, in place of Llama's names.
struct GptNames {
  std::string base;                                         // "transformer."
  const char *embedding, *layers;                           // "wte", "h."
  const char *attention_norm, *mlp_norm, *out, *last_norm;  // "ln_1", ..., "ln_f"
};
void name_modules(Architecture& architecture, const GptNames& names);

// Whether each head's queries and keys are normed: as the key of config.json says, or by the
// tensors of a GGUF file.
bool has_head_norms(ConfigReader& config, const char* key);

// The reading of "layer_norm_eps" and its like.
ConfigKey layer_norm_eps(const char* hugging_face);

}  // namespace qlora::model
