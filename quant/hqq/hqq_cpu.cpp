#include <algorithm>

#include "base/instruction_set.h"
#include "base/parallel_for.h"
#include "quant/elements/with_element_type.h"
#include "quant/hqq/hqq_kernels.h"

namespace qlora::quant::cpu {
namespace {

// Neighbours in one row of the grouped matrix.
template <typename Packed>
struct HqqRun {
  const Packed* packed;
  int shift, bits;   // of their fields
  bool shares_zero;  // and the scale
  int64_t count;
};

}  // namespace
}  // namespace qlora::quant::cpu

#define QLORA_SIMD_LOOPS "quant/hqq/hqq_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements a thread is worth waking for

template <typename Packed, typename S, typename T>
void decode_run(const HqqRun<Packed>& run, const S* zeros, const S* scales, T* out) {
#ifdef __x86_64__
  if (has_avx512()) return simd::avx512::decode_run(run, zeros, scales, out);
  if (has_avx2()) return simd::avx2::decode_run(run, zeros, scales, out);
#endif
  simd::baseline::decode_run(run, zeros, scales, out);
}

// Elements [begin, end) of those that are asked for.
template <typename Packed, typename S, typename T>
void decode_range(const HqqDequantizeArguments& a, int64_t begin, int64_t end, T* out) {
  while (begin < end) {
    const int64_t place = a.begin + begin, row = place / a.columns, column = place % a.columns;
    const int part = static_cast<int>(row / a.packed_rows);
    const int64_t group = a.groups_are_rows ? row : column;
    const HqqRun<Packed> run{
        static_cast<const Packed*>(a.packed) + row % a.packed_rows * a.columns + column,
        a.bits * (hqq_parts(a.bits) - 1 - part), a.bits, a.groups_are_rows,
        std::min(a.columns - column, end - begin)};
    decode_run(run, static_cast<const S*>(a.zeros) + group, static_cast<const S*>(a.scales) + group,
               out + begin);
    begin += run.count;
  }
}

}  // namespace

void dequantize_hqq(const HqqDequantizeArguments& a) {
  with_element_type(a.scale_type, [&]<typename S>(std::type_identity<S>) {
    with_element_type(a.type, [&]<typename T>(std::type_identity<T>) {
      T* const out = static_cast<T*>(a.out);
      parallel_for(a.end - a.begin, kGrain, [&](int64_t begin, int64_t end) {
        if (a.bits == 3)
          decode_range<int32_t, S>(a, begin, end, out);
        else
          decode_range<uint8_t, S>(a, begin, end, out);
      });
    });
  });
}

}  // namespace qlora::quant::cpu
