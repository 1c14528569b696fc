// Rotary position embeddings as data: which elements of a head turn, how fast, and how the speeds
// are scaled for contexts longer than the model was trained on, as transformers'
// modeling_rope_utils.py does it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qlora::model {

// RoPE frequencies and their scaling. Fields behind a scaling's name are read by that one only.
struct RopeConfig {
  double theta = 10000.0;
  std::string type = "default";  // default | linear | dynamic | llama3 | yarn | longrope
  double factor = 1.0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  double original_max_positions = 8192;  // the context before scaling (not of linear)
  std::vector<float> divisors;           // GGUF rope_freqs: divides each frequency; empty: none
  double beta_fast = 32, beta_slow = 1;  // yarn: turns within the context, at the ends of the ramp
  bool truncate = true;                  // yarn: the ramp's ends are whole dimensions
  double attention_factor = 1.0;         // of cos and sin: yarn, longrope, GGUF
  std::vector<float> short_factor, long_factor;  // longrope: [width / 2], divide the frequencies
};

// Which part of a head turns.
struct RotarySpec {
  RopeConfig rope;
  int64_t width = 0;   // elements from a head's start that turn; the others pass
  bool pairs = false;  // elements 2i and 2i + 1 turn together (Cohere, GLM); else i, i + width / 2
};

// FormatError naming the field if the numbers make no finite frequencies, `width` is odd or below
// 2, or a list is not of width / 2.
void validate(const RotarySpec& spec, const std::string& where);

// Whether frequencies depend on how long a document is.
bool depends_on_length(const RopeConfig& rope);

// Inverse frequencies [width / 2] after scaling, in a document of `length` positions (the largest
// position and one), computed in fp32 as transformers does.
std::vector<float> inverse_frequencies(const RopeConfig& rope, int64_t width, int64_t length = 0);

// The factor of cos and sin where the file gives none. yarn (Peng et al. 2023): 0.1 ln(factor) + 1,
// or the quotient of two such where `mscale` and `mscale_all_dim` are both given and not 0;
// longrope (Ding et al. 2024): sqrt(1 + ln(factor) / ln(original context)). 1 if the factor is at
// most 1.
double yarn_attention_factor(double factor, double mscale, double mscale_all_dim);
double longrope_attention_factor(double factor, double original_max_positions);

// GGUF has no name for Llama 3's scaling and stores what it does to each frequency. The scaling
// that makes these divisors: Llama 3's own (low_freq_factor 1, high_freq_factor 4, original context
// 8192), or one with other numbers, whose low_freq_factor is taken as 1, since only their quotients
// count. `rope` with the divisors in it, if no such scaling makes them.
RopeConfig recognise_llama3(RopeConfig rope, const std::vector<float>& divisors);

}  // namespace qlora::model
