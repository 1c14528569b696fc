#include "recipes/exports/gptq_memory.h"

#include <algorithm>
#include <vector>

namespace qlora::recipes {
namespace {

constexpr int64_t kFloat = 4;
// Of each element of a matrix: the rows, the columns in their own order and in that of rounding,
// what they are decoded to, and codes of one byte, twice.
constexpr int64_t kRoundingBytes = 4 * kFloat + 2;
// Square matrices while one Hessian becomes its factor: damped, exchanged, L and the identity, each
// with the library's own copy, L⁻¹, and U.
constexpr int64_t kFactors = 9;

GptqMemory of_block(const model::BlockSpec& block, const quant::GptqOptions& options,
                    int64_t weight_bytes, int64_t compute_bytes, int64_t hidden, int64_t tokens) {
  GptqMemory most;
  int64_t widest = 0, largest_hessian = 0, hessians = 0;
  for (const model::Branch& branch : block.branches) {
    const bool experts = branch.experts() != nullptr;
    int64_t of_experts = 0;
    for (const std::vector<model::LinearSpec>& group : branch.groups()) {
      int64_t outputs = 0;
      for (const model::LinearSpec& linear : group) {
        const int64_t numbers = linear.out * linear.in;
        most.weights += numbers * (std::max(weight_bytes, compute_bytes) + 1);
        most.rounding = std::max(most.rounding, numbers * kRoundingBytes);
        outputs += linear.out;
      }
      if (group.empty()) continue;
      const int64_t in = group.front().in, hessian = in * in * kFloat;
      widest = std::max({widest, in, outputs});
      largest_hessian = std::max(largest_hessian, hessian);
      if (experts)
        of_experts += hessian;
      else
        hessians = options.true_sequential ? std::max(hessians, hessian) : hessians + hessian;
    }
    hessians = std::max(hessians, std::min(of_experts, kMostHessianBytes));
  }
  most.hessians = hessians + kFactors * largest_hessian;
  // The stream twice, a normed input and its copy in fp32, and what the widest product gives.
  most.pass = tokens * (2 * kFloat * hidden + (compute_bytes + kFloat) * widest +
                        2 * compute_bytes * widest);
  // Gaps between buffers of ever other sizes, measured at 135M.
  for (int64_t* part : {&most.weights, &most.rounding, &most.hessians, &most.pass})
    *part += *part / 4;
  return most;
}

}  // namespace

GptqMemory gptq_memory(const model::Architecture& architecture, const quant::GptqOptions& options,
                       int64_t weight_bytes, int64_t compute_bytes, int64_t tokens) {
  GptqMemory most;
  for (int64_t layer = 0; layer < architecture.num_layers(); ++layer) {
    const GptqMemory one = of_block(architecture.block(layer), options, weight_bytes, compute_bytes,
                                    architecture.hidden_size, tokens);
    if (one.total() > most.total()) most = one;
  }
  return most;
}

}  // namespace qlora::recipes
