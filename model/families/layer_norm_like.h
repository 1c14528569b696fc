// The families before Llama and beside it: LayerNorms, biases, an MLP without a gate, attention and
// MLP one after the other or side by side. Their numbers are Llama's, under names of their own.
#pragma once

#include "model/families/llama_like.h"

namespace qlora::model {

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

// Whether each head's queries and keys are normed: as the key of config.json says, or by the
// tensors of a GGUF file.
bool has_head_norms(ConfigReader& config, const char* key);

// The reading of "layer_norm_eps" and its like.
ConfigKey layer_norm_eps(const char* hugging_face);

}  // namespace qlora::model
