// The config_groups of a compressed-tensors config: which modules are quantized how.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "quant/prequantized/name_patterns.h"

namespace qlora::quant {

// How the weights of a group are stored.
struct CompressedWeights {
  int bits = 4;
  bool is_float = false;
  bool symmetric = true;
  int64_t group_size = -1;  // -1: a whole row
  bool ordered = true;      // columns lie in groups one after the other (no actorder "group")
};

class CompressedGroups {
 public:
  // FormatError naming the key of what is not read.
  explicit CompressedGroups(const io::JsonNode& config);

  bool any_float() const;
  // By the first group that names the module, or else all linear layers, or that is the only one.
  std::optional<CompressedWeights> of(const std::string& module) const;

 private:
  struct Group {
    bool has_linear = false;  // names the class of all linear layers
    CompressedWeights weights;
  };

  void add_group(const io::JsonNode& node);

  std::vector<Group> groups_;
  NamePatterns targets_;
  std::vector<size_t> group_of_target_;  // by the numbers of targets_
};

}  // namespace qlora::quant
