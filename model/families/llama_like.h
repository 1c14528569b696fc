// What most families have in common with Llama (Touvron et al. 2023): its numbers, and a block of
// RMSNorm, rotated grouped-query attention and a gated MLP. A relative reads them with its own
// defaults, takes the description that they make, and changes what it does otherwise.
#pragma once

#include <string>

#include "model/architecture.h"
#include "model/families/config_reader.h"
#include "model/families/rope_keys.h"

namespace qlora::model {

// How a family spells Llama's sizes; without spellings a size is its default.
struct SizeKeys {
  ConfigKey hidden{{"hidden_size"}, "embedding_length", true};
  ConfigKey inner{{"intermediate_size"}, "feed_forward_length", true};
  ConfigKey layers{{"num_hidden_layers"}, "block_count", true};
  ConfigKey heads{{"num_attention_heads"}, "attention.head_count", true};
  ConfigKey kv_heads{{"num_key_value_heads"}, "attention.head_count_kv"};
  ConfigKey head_dim{{"head_dim"}, "attention.key_length"};
  ConfigKey positions{{"max_position_embeddings"}, "context_length"};
};

// Of transformers' configuration classes: what holds where a config.json does not say it. 0: as
// many as there are heads; hidden size / heads; 4 hidden sizes.
struct LlamaDefaults {
  int64_t num_kv_heads = 0, head_dim = 0;
  int64_t vocab_size = 32000, hidden_size = 4096, intermediate_size = 11008;
  int64_t num_layers = 32, num_heads = 32;
  double norm_eps = 1e-6;
  RopeDefaults rope = {};
  bool tied_embeddings = false, attention_bias = false;
  // Empty where transformers reads no such key for the family.
  const char *attention_bias_key = "attention_bias", *mlp_bias_key = "";
  int64_t max_positions = 2048;
  const char* activation = "silu";
  ConfigKey activation_key = {{"hidden_act"}};
  ConfigKey norm_eps_key = {{"rms_norm_eps"}, "attention.layer_norm_rms_epsilon", true};
  bool reads_rope = true;  // false: the family does, where its layers are rotated differently
  bool rotates = true;     // false: there is no RoPE, nor a key for it
  SizeKeys keys = {};
};

struct LlamaSizes {
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0;
  int64_t num_layers = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int64_t max_positions = 2048;
  double rms_norm_eps = 1e-6;
  Activation activation = Activation::kSilu;
  bool attention_bias = false, mlp_bias = false, tied_embeddings = false;
  std::string attention_bias_key = "attention_bias", mlp_bias_key = "mlp_bias";
  bool rotates = true;
  RotarySpec rotary = {};  // of width 0: of whole heads

  // FormatError naming the field if a size is missing, not positive, too large or inconsistent
  // (heads, head_dim).
  void validate(const std::string& where, const SizeKeys& keys = {}) const;
};

// FormatError naming file and key.
LlamaSizes read_llama_sizes(ConfigReader& config, const LlamaDefaults& defaults = {});

Architecture llama_like(const std::string& family, const LlamaSizes& sizes);

// A norm of each head's queries or keys.
NormSpec head_norm(const char* hugging_face, const char* gguf, const LlamaSizes& sizes);

// Queries, keys and values, or gate and up, from one matrix, one below the other. Adapters are of
// that matrix, as PEFT's are.
void fuse_qkv(Architecture& architecture, const TensorNames& names);
void fuse_gate_up(Architecture& architecture, const TensorNames& names);

// llama.cpp's files of this family hold the rows of queries and keys as the pairs that rotate
// (permute() in convert_hf_to_gguf.py).
void keep_rotary_pairs(Architecture& architecture);

// "silu", "gelu", "gelu_pytorch_tanh", ... FormatError naming the key for one that is not known.
Activation read_activation(ConfigReader& config, const ConfigKey& key, const char* otherwise);

}  // namespace qlora::model
