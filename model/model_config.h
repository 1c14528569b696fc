// The shape of a decoder-only model in our terms. families/ translates a Hugging Face config.json
// or GGUF metadata.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qlora::model {

// RoPE frequencies and their scaling (formats spec 6.2).
struct RopeConfig {
  double theta = 10000.0;
  std::string type = "default";  // default | linear | llama3
  double factor = 1.0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;
  double original_max_positions = 8192;
  std::vector<float> divisors;  // GGUF rope_freqs: divides each frequency; empty: none
};

struct ModelConfig {
  std::string family;  // "llama"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_positions = 2048;
  double rms_norm_eps = 1e-6;
  bool attention_bias = false;
  bool mlp_bias = false;
  bool tied_embeddings = false;
  RopeConfig rope;

  // FormatError naming the field if a size is missing, not positive, too large or inconsistent
  // (heads, head_dim).
  void validate(const std::string& where) const;
};

// GGUF has no name for Llama 3's scaling and stores what it does to each frequency. The scaling
// that makes these divisors, if it is Llama 3's (low_freq_factor 1, high_freq_factor 4, original
// context 8192), else `rope` with the divisors in it.
RopeConfig recognise_llama3(RopeConfig rope, const std::vector<float>& divisors);

// Inverse frequencies [head_dim / 2] after scaling.
std::vector<float> inverse_frequencies(const RopeConfig& rope, int64_t head_dim);

}  // namespace qlora::model
