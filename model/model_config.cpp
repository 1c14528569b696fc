#include "model/model_config.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace qlora::model {
namespace {

// Numbers that make frequencies.
void validate_rope(const RopeConfig& rope, const std::string& where) {
  constexpr double kLargest = std::numeric_limits<float>::max();  // frequencies are fp32
  if (!(rope.theta > 1 && rope.theta <= kLargest))
    fail<FormatError>("{}: rope_theta must be above 1 and at most {}, got {}", where, kLargest,
                      rope.theta);
  const auto positive = [&](const char* field, double value) {
    if (!(value > 0 && value <= kLargest))
      fail<FormatError>("{}: {} of RoPE's scaling must be above 0 and at most {}, got {}", where,
                        field, kLargest, value);
  };
  positive("factor", rope.factor);
  positive("low_freq_factor", rope.low_freq_factor);
  positive("original_max_position_embeddings", rope.original_max_positions);
  if (!(rope.high_freq_factor > rope.low_freq_factor && rope.high_freq_factor <= kLargest))
    fail<FormatError>(
        "{}: high_freq_factor of RoPE's scaling must be above low_freq_factor ({}), got {}", where,
        rope.low_freq_factor, rope.high_freq_factor);
}

}  // namespace

void ModelConfig::validate(const std::string& where) const {
  const auto need = [&](const char* field, int64_t value, int64_t most) {
    if (value < 1 || value > most)
      fail<FormatError>("{}: {} must be between 1 and {}, got {}", where, field, most, value);
  };
  need("vocab_size", vocab_size, 1 << 24);
  need("hidden_size", hidden_size, 1 << 20);
  need("intermediate_size", intermediate_size, 1 << 22);
  need("num_hidden_layers", num_layers, 4096);
  need("num_attention_heads", num_heads, 65536);
  need("num_key_value_heads", num_kv_heads, 65536);
  need("head_dim", head_dim, 65536);
  if (num_heads % num_kv_heads != 0)
    fail<FormatError>("{}: num_attention_heads ({}) must be a multiple of num_key_value_heads ({})",
                      where, num_heads, num_kv_heads);
  if (head_dim % 2 != 0)
    fail<FormatError>("{}: head_dim must be even for RoPE, got {}", where, head_dim);
  if (!(rms_norm_eps > 0 && rms_norm_eps < 1))
    fail<FormatError>("{}: rms_norm_eps must be between 0 and 1, got {}", where, rms_norm_eps);
  validate_rope(rope, where);
}

RopeConfig recognise_llama3(RopeConfig rope, const std::vector<float>& divisors) {
  constexpr double kTolerance = 1e-4;
  const auto head_dim = static_cast<int64_t>(2 * divisors.size());
  RopeConfig scaled = rope, plain = rope;
  scaled.type = "llama3";
  scaled.factor = *std::max_element(divisors.begin(), divisors.end());
  const std::vector<float> expected = inverse_frequencies(scaled, head_dim);
  const std::vector<float> base = inverse_frequencies(plain, head_dim);
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double found = base[i] / divisors[i];
    if (!(std::abs(found - expected[i]) <= kTolerance * expected[i])) {
      plain.divisors = divisors;
      return plain;
    }
  }
  return scaled;
}

std::vector<float> inverse_frequencies(const RopeConfig& rope, int64_t head_dim) {
  const double pi = 3.14159265358979323846;
  std::vector<float> result(static_cast<size_t>(head_dim / 2));
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    // fp32 as transformers computes it: 1 / theta^(2i/d)
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    float inverse = 1.0f / std::pow(static_cast<float>(rope.theta), exponent);
    if (rope.type == "linear") inverse /= static_cast<float>(rope.factor);
    if (rope.type == "llama3") {
      const double wavelength = 2 * pi / inverse;
      const double low = rope.original_max_positions / rope.low_freq_factor;
      const double high = rope.original_max_positions / rope.high_freq_factor;
      if (wavelength > low) {
        inverse = static_cast<float>(inverse / rope.factor);
      } else if (wavelength >= high) {
        const double smooth = (rope.original_max_positions / wavelength - rope.low_freq_factor) /
                              (rope.high_freq_factor - rope.low_freq_factor);
        inverse = static_cast<float>((1 - smooth) * inverse / rope.factor + smooth * inverse);
      }
    }
    if (!rope.divisors.empty()) inverse /= rope.divisors[static_cast<size_t>(i)];
    result[static_cast<size_t>(i)] = inverse;
  }
  return result;
}

}  // namespace qlora::model
