#include "model/alibi.h"

#include <ATen/ATen.h>

#include <bit>
#include <cmath>

namespace qlora::model {
namespace {

// 2^(-8 i / count), i = 1, 2, ..., count.
std::vector<float> powers(int64_t count) {
  std::vector<float> slopes;
  for (int64_t i = 1; i <= count; ++i)
    slopes.push_back(
        static_cast<float>(std::exp2(-8.0 * static_cast<double>(i) / static_cast<double>(count))));
  return slopes;
}

}  // namespace

std::vector<float> alibi_slopes(int64_t heads) {
  const auto below = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(heads)));
  std::vector<float> slopes = powers(below);
  const std::vector<float> finer = powers(2 * below);
  for (size_t i = 0; slopes.size() < static_cast<size_t>(heads); i += 2) slopes.push_back(finer[i]);
  return slopes;
}

at::Tensor alibi_biases(const AlibiSpec& alibi, int64_t positions, at::Device device) {
  at::Tensor slopes = at::tensor(alibi.slopes).to(device).unsqueeze(1);
  at::Tensor at_position = at::arange(positions, slopes.options()).unsqueeze(0);
  if (alibi.rounds_to_bfloat16) {
    slopes = slopes.to(at::kBFloat16);
    at_position = at_position.to(at::kBFloat16);
  }
  return (slopes * at_position).to(at::kFloat) * alibi.scale;
}

}  // namespace qlora::model
