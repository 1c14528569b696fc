// Rows of grouped weights whose columns name their groups, as many side by side as a vector has
// lanes: then all lanes are of one group. Codes, scales and zeros are turned for that, and what was
// decoded is turned back. Products of few rows have a sum in each lane: nothing is turned back.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/instruction_set.h"
#include "quant/elements/with_element_type.h"
#include "quant/few_rows/for_tokens.h"
#include "quant/grouped/grouped_decoders.h"
#include "quant/grouped/grouped_product_kernels.h"

#define QLORA_SIMD_BFLOAT16
#define QLORA_SIMD_LOOPS "quant/grouped/scattered_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

template <typename T>
using DecodeRows = void (*)(const GroupedRows&, int64_t, int64_t, ScatteredRoom&, T*);
using MultiplyRows = void (*)(const GroupedRows&, int64_t, int64_t, ScatteredRoom&, const float*,
                              float*, int64_t);

#define QLORA_DECODER(set)                                                              \
  return is_short ? simd::set::decode_scattered_rows<kBits, simd::set::ShortWeights, T> \
                  : simd::set::decode_scattered_rows<kBits, simd::set::AnyWeights, T>
#define QLORA_MULTIPLIER(set)                                                                   \
  return is_short ? simd::set::multiply_scattered_rows<kBits, simd::set::ShortWeights, kTokens> \
                  : simd::set::multiply_scattered_rows<kBits, simd::set::AnyWeights, kTokens>

template <int kBits, typename T>
DecodeRows<T> decoder(bool is_short) {
#ifdef __x86_64__
  if constexpr (std::is_same_v<T, uint16_t>)
    if (has_avx512_bfloat16()) QLORA_DECODER(avx512_bfloat16);
  if (has_avx512()) QLORA_DECODER(avx512);
  if (has_avx2()) QLORA_DECODER(avx2);
#endif
  QLORA_DECODER(baseline);
}

template <int kBits, int kTokens>
MultiplyRows multiplier(bool is_short) {
#ifdef __x86_64__
  if (has_avx512()) QLORA_MULTIPLIER(avx512);
  if (has_avx2()) QLORA_MULTIPLIER(avx2);
#endif
  QLORA_MULTIPLIER(baseline);
}
#undef QLORA_DECODER
#undef QLORA_MULTIPLIER

// What f(constant bits) returns; of 2, 3, 4 or 8 bits.
template <typename F>
auto with_scattered_bits(int bits, const F& f) {
  switch (bits) {
    case 2:
      return f(std::integral_constant<int, 2>());
    case 3:
      return f(std::integral_constant<int, 3>());
    case 4:
      return f(std::integral_constant<int, 4>());
    default:
      return f(std::integral_constant<int, 8>());
  }
}

int64_t rows_side_by_side() {
#ifdef __x86_64__
  if (has_avx512()) return simd::avx512::kLanes;
  if (has_avx2()) return simd::avx2::kLanes;
#endif
  return simd::baseline::kLanes;
}

}  // namespace

ScatteredRoom::ScatteredRoom(int64_t groups)
    : rows(rows_side_by_side()),
      scales(static_cast<size_t>((groups + 1) * rows)),
      zeros(scales.size()),
      turned(static_cast<size_t>((groups + rows - 1) / rows * rows * rows / 16 * 3)) {}

bool decode_scattered(const GroupedRows& weight, int64_t first, int64_t count, ElementType type,
                      ScatteredRoom& room, void* out) {
  if (weight.bits == 1 || count * 4 < room.rows) return false;
  widen_scales_and_zeros(weight, first, count, room.scales.data(), room.zeros.data());
  const float *scales = room.scales.data(), *zeros = room.zeros.data();
  const bool is_short = are_short(scales, zeros, count * weight.groups);
  if (!is_short && !are_ordinary(scales, zeros, count * weight.groups)) return false;
  with_element_type(type, [&]<typename T>(std::type_identity<T>) {
    const DecodeRows<T> decode =
        with_scattered_bits(weight.bits, [&](auto bits) { return decoder<bits, T>(is_short); });
    decode(weight, first, count, room, static_cast<T*>(out));
  });
  return true;
}

bool has_scattered_product(const GroupedRows& w) {
  const bool one_whole_zero = w.byte_zeros == nullptr && w.float_zeros == nullptr &&
                              std::abs(w.zero) <= kMostZero && std::rint(w.zero) == w.zero;
  return w.bits != 1 && w.in % kGroupUnit == 0 && (w.byte_zeros != nullptr || one_whole_zero);
}

void multiply_scattered(const GroupedRows& w, const float* x, int64_t tokens, int64_t begin,
                        int64_t end, float* sums, int64_t stride) {
  ScatteredRoom room(w.groups);
  for_tokens(tokens, [&](int64_t t, auto count) {
    constexpr int kTokens = count;
    for (int64_t row = begin; row < end; row += room.rows) {
      const int64_t rows = std::min(room.rows, end - row);
      widen_scales_and_zeros(w, row, rows, room.scales.data(), room.zeros.data());
      const bool is_short = are_short(room.scales.data(), room.zeros.data(), rows * w.groups);
      const MultiplyRows multiply = with_scattered_bits(
          w.bits, [&](auto bits) { return multiplier<bits, kTokens>(is_short); });
      multiply(w, row, rows, room, x + t * w.in, sums + t * stride + row - begin, stride);
    }
  });
}

}  // namespace qlora::quant::cpu
