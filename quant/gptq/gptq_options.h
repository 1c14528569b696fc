// What `qlora quantize --method gptq` decides.
#pragma once

#include <cstdint>
#include <string>

namespace qlora::quant {

// In which order a weight's columns are rounded. Later ones make up for the errors of earlier ones,
// so that those that matter most (of the largest diagonal of the Hessian) had better come first.
enum class GptqOrder : uint8_t {
  kPlain,        // as they are
  kActivations,  // the most important first; groups are of columns that follow each other then
  // The most important first within each group, and the group with the most important column
  // first: groups stay neighbouring columns, so that using the weight costs no more than kPlain
  // (group-aware reordering, Gafni et al. 2025).
  kGroups,
};

struct GptqOptions {
  int bits = 4;              // 2, 3, 4 or 8
  int64_t group_size = 128;  // columns that share a scale; -1: the whole row
  bool symmetric = true;     // the zero of every group is 2^(bits - 1)
  GptqOrder order = GptqOrder::kGroups;
  // Ranges of all groups are those of the weight before it was corrected; groups are neighbouring
  // columns in any order.
  bool static_groups = false;
  // Layers of a block are rounded by what they read when those before them are rounded already;
  // else by what they read in the block as it was, whose inputs are then computed once.
  bool true_sequential = true;
  double damp = 0.05;  // of the diagonal's mean, added to the diagonal
  // Shrinks each range to the one of 80 with the least sum of |error|^mse; 0: ranges hold all
  // weights. 2.4 is usual.
  double mse = 0;

  // Throws ConfigError naming the option.
  void validate() const;
  // "gptq, 4 bit, group size 128"; what differs from the defaults follows.
  std::string to_text() const;
};

}  // namespace qlora::quant
