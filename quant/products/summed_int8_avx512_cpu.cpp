// Signed codes are multiplied as x (w + 128) - 128 Σ x, since vpdpbusd, which adds four products a
// lane, takes one factor without a sign. Of weights it costs nothing: they are packed anyway.
#include "quant/int8/int8_kernels.h"
#include "quant/products/summed_product_kernels.h"

// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <algorithm>
#include <cstring>
#include <vector>

#include "base/parallel_for.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni")
#include "base/bfloat16_tile_avx512.h"
#include "quant/products/summed_tile_avx512.h"

namespace qlora::quant::cpu {
namespace {

constexpr int kCodes = 4;  // of a word

void pack_raised(const Int8Rows& w, int64_t words, int64_t column, int64_t columns,
                 std::vector<uint32_t>& packed) {
  reserve(packed, words * kColumns);
  // For packing, two codes are as good as a 16-bit element.
  pack_transposed(reinterpret_cast<const uint16_t*>(w.codes + column * w.stride), w.stride / 2,
                  2 * words, columns, packed.data(), kColumns);
  for (int64_t i = 0; i < words * kColumns; ++i) packed[static_cast<size_t>(i)] ^= 0x80808080u;
}

// acc[i][j] = Σ of four products a lane and word.
[[gnu::always_inline]] inline void multiply_codes(const int8_t* a, int64_t stride, int64_t rows,
                                                  const uint32_t* packed, int64_t words,
                                                  __m512i (&acc)[kRows][kVectors]) {
  const int8_t* row[kRows];
  for (int i = 0; i < kRows; ++i) row[i] = a + (i < rows ? i : rows - 1) * stride;
  for (auto& sums : acc)
    for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t p = 0; p < words; ++p) {
    __m512i b[kVectors];
    for (int j = 0; j < kVectors; ++j)
      b[j] = _mm512_loadu_si512(packed + p * kColumns + j * kWords);
    for (int i = 0; i < kRows; ++i) {
      int32_t four;
      std::memcpy(&four, row[i] + p * kCodes, sizeof(four));
      const __m512i x = _mm512_set1_epi32(four);
      for (int j = 0; j < kVectors; ++j) acc[i][j] = _mm512_dpbusd_epi32(acc[i][j], b[j], x);
    }
  }
}

// The integer sums of a tile as numbers.
void multiply_tile_of(const LeftInt8& a, const SummedInt8Arguments& p, const TilePlace& at,
                      const uint32_t* packed, const int32_t* raised,
                      float (&numbers)[kRows][kColumns]) {
  __m512i acc[kRows][kVectors];
  multiply_codes(a.rows.codes + at.t * a.rows.stride, a.rows.stride, at.rows, packed, a.k / kCodes,
                 acc);
  for_each_vector(
      at.rows, at.columns, [&](int i, int j, __mmask16 mask) __attribute__((always_inline)) {
        const int64_t t = at.t + (i < at.rows ? i : 0);
        const __m512i sum = _mm512_sub_epi32(acc[i][j], _mm512_set1_epi32(raised[t]));
        const __m512 scale =
            _mm512_mul_ps(_mm512_set1_ps(a.rows.absmax[t]),
                          _mm512_maskz_loadu_ps(mask, p.weight.absmax + at.column + j * kWords));
        _mm512_storeu_ps(numbers[i] + j * kWords,
                         _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale),
                                       _mm512_set1_ps(kOne127Squared)));
      });
}

// All that is added to them.
void finish_tile(const LeftInt8& a, const SummedOutput& to, const TilePlace& at,
                 const Packs& packed, const float (&numbers)[kRows][kColumns]) {
  __m512 acc[kRows][kVectors];
  begin_tile(to, at, packed.c.data(), acc);
  if (a.num_outliers > 0)
    multiply_tile(a.outliers + at.t * a.num_outliers, a.num_outliers, 2, at.rows,
                  packed.outliers.data(), kColumns, a.num_outliers / 2, acc);
  for_each_vector(
      at.rows, at.columns, [&](int i, int j, __mmask16) __attribute__((always_inline)) {
        acc[i][j] = _mm512_add_ps(acc[i][j], _mm512_loadu_ps(numbers[i] + j * kWords));
      });
  store_tile(to, at, acc);
}

// 128 Σ x of each row.
std::vector<int32_t> raises(const LeftInt8& a) {
  std::vector<int32_t> sums(static_cast<size_t>(a.m));
  parallel_for(a.m, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int8_t* row = a.rows.codes + t * a.rows.stride;
      int32_t sum = 0;
      for (int64_t i = 0; i < a.k; ++i) sum += row[i];
      sums[static_cast<size_t>(t)] = 128 * sum;
    }
  });
  return sums;
}

}  // namespace

void summed_int8_products_avx512(const LeftInt8& a, std::span<const SummedInt8Arguments> products) {
  const std::vector<int32_t> raised = raises(a);
  for_each_block(a.m, products, [&](const Block<SummedInt8Arguments>& block) {
    const SummedInt8Arguments& p = *block.product;
    Packs& packed = packs();
    pack_raised(p.weight, a.k / kCodes, block.column, block.columns, packed.b);
    if (p.to.rank > 0) pack(p.to.c, p.to.rank, block.column, block.columns, packed.c);
    if (a.num_outliers > 0)
      pack(p.outliers, a.num_outliers, block.column, block.columns, packed.outliers);
    for_each_tile(block, [&](const TilePlace& at) {
      float numbers[kRows][kColumns];
      multiply_tile_of(a, p, at, packed.b.data(), raised.data(), numbers);
      finish_tile(a, p.to, at, packed, numbers);
    });
  });
}

}  // namespace qlora::quant::cpu
