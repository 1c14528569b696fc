#include <algorithm>
#include <vector>

#include "base/element.h"
#include "base/instruction_set.h"
#include "base/parallel_for.h"
#include "quant/aqlm/aqlm_kernels.h"
#include "quant/elements/with_element_type.h"

namespace qlora::quant::cpu {
namespace {

// What a row of the weight is made of. Code: uint8_t or uint16_t.
template <typename Code, typename Entry>
struct AqlmRow {
  const Code* codes;                      // [column_blocks, num_codebooks]
  const Entry* codebooks;                 // of the row within its block of rows
  int64_t codebook_stride, entry_stride;  // elements
  int64_t num_codebooks, column_blocks, in_group, mask;
  float scale;
};

}  // namespace
}  // namespace qlora::quant::cpu

#define QLORA_SIMD_LOOPS "quant/aqlm/aqlm_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements a thread is worth waking for

// Groups that are no whole vectors.
template <typename Code, typename Entry>
void sum_single_entries(const AqlmRow<Code, Entry>& row, float* out) {
  for (int64_t block = 0; block < row.column_blocks; ++block)
    for (int64_t j = 0; j < row.in_group; ++j) {
      float sum = 0;
      for (int64_t c = 0; c < row.num_codebooks; ++c) {
        const int64_t entry = row.codes[block * row.num_codebooks + c] & row.mask;
        sum += load(row.codebooks[c * row.codebook_stride + entry * row.entry_stride + j]);
      }
      *out++ = sum * row.scale;
    }
}

template <typename Code, typename Entry>
using SumEntries = void (*)(const AqlmRow<Code, Entry>&, float*);

template <typename Code, typename Entry>
SumEntries<Code, Entry> row_kernel(int64_t in_group) {
#ifdef __x86_64__
  if (has_avx512() && in_group % simd::avx512::kLanes == 0)
    return simd::avx512::sum_entries<Code, Entry>;
  if (has_avx2() && in_group % simd::avx2::kLanes == 0) return simd::avx2::sum_entries<Code, Entry>;
#endif
  if (in_group % simd::baseline::kLanes == 0) return simd::baseline::sum_entries<Code, Entry>;
  return sum_single_entries<Code, Entry>;
}

template <typename T>
void round_row(const float* values, int64_t count, T* out) {
#ifdef __x86_64__
  if (has_avx512()) return simd::avx512::round_row(values, count, out);
  if (has_avx2()) return simd::avx2::round_row(values, count, out);
#endif
  simd::baseline::round_row(values, count, out);
}

float scale_at(const AqlmDequantizeArguments& a, int64_t i) {
  float scale = 0;
  with_element_type(a.scale_type, [&]<typename Scale>(std::type_identity<Scale>) {
    scale = load(static_cast<const Scale*>(a.scales)[i]);
  });
  return scale;
}

template <typename Code, typename Entry>
AqlmRow<Code, Entry> row_of(const AqlmDequantizeArguments& a, int64_t row) {
  const int64_t block = row / a.out_group, entry = a.out_group * a.in_group;
  return {static_cast<const Code*>(a.codes) + block * a.column_blocks * a.num_codebooks,
          static_cast<const Entry*>(a.codebooks) + row % a.out_group * a.in_group,
          a.entries * entry,
          entry,
          a.num_codebooks,
          a.column_blocks,
          a.in_group,
          a.entries - 1,
          scale_at(a, block)};
}

template <typename Code, typename Entry, typename T>
void dequantize_as(const AqlmDequantizeArguments& a) {
  const SumEntries<Code, Entry> sum_entries = row_kernel<Code, Entry>(a.in_group);
  T* out = static_cast<T*>(a.out);
  const int64_t in = a.in();
  parallel_for(a.end - a.begin, std::max<int64_t>(1, kGrain / in), [&](int64_t begin, int64_t end) {
    std::vector<float> values(static_cast<size_t>(in));
    for (int64_t i = begin; i < end; ++i) {
      sum_entries(row_of<Code, Entry>(a, a.begin + i), values.data());
      round_row(values.data(), in, out + i * in);
    }
  });
}

}  // namespace

void dequantize_aqlm(const AqlmDequantizeArguments& a) {
  with_element_type(a.codebook_type, [&]<typename Entry>(std::type_identity<Entry>) {
    with_element_type(a.type, [&]<typename T>(std::type_identity<T>) {
      if (a.codes_are_16_bit)
        dequantize_as<uint16_t, Entry, T>(a);
      else
        dequantize_as<uint8_t, Entry, T>(a);
    });
  });
}

}  // namespace qlora::quant::cpu
