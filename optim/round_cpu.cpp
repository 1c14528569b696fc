#include <algorithm>
#include <bit>

#include "base/parallel_for.h"
#include "optim/round_kernels.h"

namespace qlora::optim::cpu {
namespace {

void round_nearest(float* values, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const auto bits = std::bit_cast<uint32_t>(values[i]);
    values[i] = std::bit_cast<float>(rounded_bits(bits, nearest_addend(bits)));
  }
}

void round_block(float* values, int count, const PhiloxWords& words) {
  for (int i = 0; i < count; ++i) {
    const auto bits = std::bit_cast<uint32_t>(values[i]);
    values[i] = std::bit_cast<float>(rounded_bits(bits, random_addend(words, i)));
  }
}

}  // namespace

void round_to_bfloat16(const RoundArguments& a) {
  const int64_t blocks = (a.count + kPlacesPerBlock - 1) / kPlacesPerBlock;
  parallel_for(blocks, 512, [&](int64_t begin, int64_t end) {
    if (!a.stochastic)
      return round_nearest(a.values, begin * kPlacesPerBlock,
                           std::min(a.count, end * kPlacesPerBlock));
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kPlacesPerBlock;
      round_block(a.values + first,
                  static_cast<int>(std::min<int64_t>(kPlacesPerBlock, a.count - first)),
                  philox_words(a.key, static_cast<uint64_t>(block)));
    }
  });
}

}  // namespace qlora::optim::cpu
