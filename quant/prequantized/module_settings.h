// What a GPTQ or AWQ config says of single modules: bits and group_size for all, and `dynamic`, an
// object of patterns to what differs where they match (GPTQModel's QuantizeConfig). The tensors
// have the last word: tools drop these settings when they save a model again.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/json.h"
#include "quant/prequantized/name_patterns.h"

namespace qlora::quant {

struct ModuleSettings {
  int bits = 4;
  int64_t group_size = 128;  // -1: a whole row
  bool sym = true;           // all zeros are 2^(bits - 1)
  bool says_sym = false;     // sym is the config's word
  bool desc_act = false;     // columns lie in groups of an order of their own
};

class SettingsOfModules {
 public:
  // `bits`: those that the format may have. FormatError naming the key of another value or of a
  // pattern that is no regular expression. AutoAWQ's names (w_bit, q_group_size, zero_point) are
  // taken too.
  SettingsOfModules(const io::JsonNode& config, std::span<const int> bits);

  // What may hold for the module, the likeliest first: of the patterns that match, of a quantized
  // lm_head, of all modules. Patterns come in the order of their text, as objects are read in.
  std::vector<ModuleSettings> of(const std::string& module) const;

  // What the config's messages begin with.
  const std::string& place() const { return place_; }
  // Warns, once a config, if it leaves the module unquantized, or has other bits or groups for it
  // than `bits` and `group_size`, those of its tensors.
  void warn_of_other_sizes(const std::string& module, int64_t in, int bits,
                           int64_t group_size) const;
  // Warns, once a config, if it says that the module's zeros are all alike and in the middle, and
  // `zeros` are not.
  void warn_of_other_zeros(const std::string& module, int bits, const at::Tensor& zeros) const;

 private:
  // As of() has them, without those of all modules where a pattern matches.
  std::vector<ModuleSettings> said_of(const std::string& module) const;
  void add_override(const io::JsonNode& dynamic, const std::string& key, std::span<const int> bits);

  std::string place_;
  ModuleSettings all_;
  NamePatterns overrides_, left_out_;
  std::vector<ModuleSettings> changed_;  // by the numbers of overrides_
  bool lm_head_ = false;                 // quantized
};

// FormatError unless pack_dtype and data_type, where the config has them, say integers in words of
// 32 bits.
void require_integers(const io::JsonNode& config);

// The one of `bits` that fits; nothing if none or several do.
template <typename Fits>
std::optional<int> only_fitting(std::span<const int> bits, const Fits& fits) {
  std::optional<int> found;
  for (const int width : bits) {
    if (!fits(width)) continue;
    if (found) return std::nullopt;
    found = width;
  }
  return found;
}

}  // namespace qlora::quant
