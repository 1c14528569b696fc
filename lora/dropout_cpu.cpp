#include <algorithm>
#include <cstring>

#include "base/element.h"
#include "base/parallel_for.h"
#include "base/philox.h"
#include "base/vectorize.h"
#include "lora/dropout_kernels.h"
#include "quant/elements/with_element_type.h"

namespace qlora::lora::cpu {
namespace {

constexpr int64_t kGroup = 128;  // elements that kLanes Philox blocks give their bits
constexpr int64_t kGroups = 8;   // drawn at a time, into the nearest cache

// The bits of groups [first, first + count), in the order of dropout.h: Philox (philox.h), kLanes
// counters at once.
QLORA_VECTORIZED void draw(uint64_t key, int64_t first, int64_t count, uint16_t* bits) {
  for (int64_t group = 0; group < count; ++group, bits += kGroup) {
    uint32_t x[4][kLanes];
    for (int j = 0; j < kLanes; ++j) {
      const auto counter = static_cast<uint64_t>((first + group) * kLanes + j);
      x[0][j] = static_cast<uint32_t>(counter);
      x[1][j] = static_cast<uint32_t>(counter >> 32);
      x[2][j] = x[3][j] = 0;
    }
    auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
      for (int j = 0; j < kLanes; ++j) {
        const uint64_t p0 = static_cast<uint64_t>(kPhiloxFactor0) * x[0][j];
        const uint64_t p1 = static_cast<uint64_t>(kPhiloxFactor1) * x[2][j];
        x[0][j] = static_cast<uint32_t>(p1 >> 32) ^ x[1][j] ^ k0;
        x[2][j] = static_cast<uint32_t>(p0 >> 32) ^ x[3][j] ^ k1;
        x[1][j] = static_cast<uint32_t>(p1);
        x[3][j] = static_cast<uint32_t>(p0);
      }
      k0 += kPhiloxStep0;
      k1 += kPhiloxStep1;
    }
    std::memcpy(bits, x, sizeof(x));
  }
}

template <typename T>
[[gnu::always_inline]] inline void drop_range(const T* __restrict in, const uint16_t* bits,
                                              uint32_t below, float scale, int64_t count,
                                              bool accumulate, T* __restrict out) {
  for (int64_t i = 0; i < count; ++i) {
    const float kept = bits[i] >= below ? load(in[i]) * scale : 0.0f;
    store(accumulate ? load(out[i]) + kept : kept, out[i]);
  }
}

// The loop for each type of element, compiled for several instruction sets.
#define QLORA_DROP(T)                                                                    \
  QLORA_VECTORIZED void drop(const T* in, const uint16_t* bits, uint32_t below, float s, \
                             int64_t count, bool accumulate, T* out) {                   \
    accumulate ? drop_range(in, bits, below, s, count, true, out)                        \
               : drop_range(in, bits, below, s, count, false, out);                      \
  }

QLORA_DROP(float)
QLORA_DROP(uint16_t)
QLORA_DROP(Float16)
#undef QLORA_DROP

}  // namespace

void dropout(const DropoutArguments& a) {
  const uint32_t below = drop_below(a.probability);
  const float scale = 1.0f / (1.0f - a.probability);
  quant::with_element_type(a.type, [&]<typename T>(std::type_identity<T>) {
    parallel_for((a.count + kGroup - 1) / kGroup, kGroups, [&](int64_t begin, int64_t end) {
      uint16_t bits[kGroups * kGroup];
      for (int64_t group = begin; group < end; group += kGroups) {
        const int64_t first = group * kGroup, groups = std::min(kGroups, end - group);
        const int64_t count = std::min(a.count - first, groups * kGroup);
        draw(a.key, group, groups, bits);
        for (const DroppedTensor& t : {a.first, a.second})
          if (t.in != nullptr)
            drop(static_cast<const T*>(t.in) + first, bits, below, scale, count, t.accumulate,
                 static_cast<T*>(t.out) + first);
      }
    });
  });
}

}  // namespace qlora::lora::cpu
