// Rows of grouped weights whose columns name their groups, as many side by side as a vector has
// lanes: then all lanes are of one group. Codes, scales and zeros are turned for that, and what was
// decoded is turned back.
#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/instruction_set.h"
#include "quant/elements/with_element_type.h"
#include "quant/grouped/grouped_decoders.h"

namespace qlora::quant::cpu {
namespace {

struct ScatteredRoom {
  std::vector<float> scales, zeros;                // [rows, groups]
  std::vector<float> turned_scales, turned_zeros;  // [groups, rows]

  ScatteredRoom(int64_t rows, int64_t groups)
      : scales(static_cast<size_t>(rows * groups)),
        zeros(scales.size()),
        turned_scales(static_cast<size_t>((groups + rows - 1) / rows * rows * rows)),
        turned_zeros(turned_scales.size()) {}
};

}  // namespace
}  // namespace qlora::quant::cpu

#define QLORA_SIMD_BFLOAT16
#define QLORA_SIMD_LOOPS "quant/grouped/scattered_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

template <typename T>
using DecodeRows = void (*)(const GroupedRows&, int64_t, int64_t, ScatteredRoom&, T*);

template <int kBits, typename T>
DecodeRows<T> decoder() {
#ifdef __x86_64__
  if constexpr (std::is_same_v<T, uint16_t>)
    if (has_avx512_bfloat16()) return simd::avx512_bfloat16::decode_scattered_rows<kBits, T>;
  if (has_avx512()) return simd::avx512::decode_scattered_rows<kBits, T>;
  if (has_avx2()) return simd::avx2::decode_scattered_rows<kBits, T>;
#endif
  return simd::baseline::decode_scattered_rows<kBits, T>;
}

template <typename T>
DecodeRows<T> decoder(int bits) {
  switch (bits) {
    case 2:
      return decoder<2, T>();
    case 3:
      return decoder<3, T>();
    case 4:
      return decoder<4, T>();
    default:
      return decoder<8, T>();
  }
}

}  // namespace

int64_t rows_side_by_side() {
#ifdef __x86_64__
  if (has_avx512()) return simd::avx512::kLanes;
  if (has_avx2()) return simd::avx2::kLanes;
#endif
  return simd::baseline::kLanes;
}

bool decode_scattered(const GroupedRows& weight, int64_t first, int64_t count, ElementType type,
                      void* out) {
  const int64_t rows = rows_side_by_side();
  if (weight.bits == 1 || count * 4 < rows) return false;
  ScatteredRoom room(rows, weight.groups);
  widen_scales_and_zeros(weight, first, count, room.scales.data(), room.zeros.data());
  if (!are_ordinary(room.scales.data(), room.zeros.data(), count * weight.groups)) return false;
  with_element_type(type, [&]<typename T>(std::type_identity<T>) {
    decoder<T>(weight.bits)(weight, first, count, room, static_cast<T*>(out));
  });
  return true;
}

}  // namespace qlora::quant::cpu
