// What the products of quant/products/summed_product.h share: a thread packs the factors of 48
// columns once and takes its rows through them, 8 at a time, so that 24 sums stay in registers. To
// be included where base/bfloat16_tile_avx512.h is, and after it.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "base/parallel_for.h"
#include "quant/products/summed_product_kernels.h"

namespace qlora::quant::cpu {
using namespace avx512;

constexpr int kRows = 8, kVectors = 3;
constexpr int64_t kColumns = kVectors * kWords;
constexpr int64_t kUnit = 64;  // rows that are not divided between threads

// Room that lives until the next product of the same thread.
struct Packs {
  std::vector<uint32_t> b, c, outliers;
};
inline Packs& packs() {
  thread_local Packs room;
  return room;
}

inline void reserve(std::vector<uint32_t>& room, int64_t words) {
  if (room.size() < static_cast<size_t>(words)) room.resize(static_cast<size_t>(words));
}

// Columns of f, from `column` on.
inline void pack(const Factor& f, int64_t depth, int64_t column, int64_t columns,
                 std::vector<uint32_t>& packed) {
  reserve(packed, depth / 2 * kColumns);
  const uint16_t* first = f.data + column * f.column_stride;
  if (f.column_stride == 1)
    pack_rows(first, f.row_stride, depth, columns, packed.data(), kColumns);
  else
    pack_transposed(first, f.column_stride, depth, columns, packed.data(), kColumns);
}

// Calls f(i, j, mask) for the vectors of a tile, `mask` being of their elements within the matrix.
template <typename F>
[[gnu::always_inline]] inline void for_each_vector(int64_t rows, int64_t columns, const F& f) {
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j)
      f(i, j,
        i < rows ? first_lanes(std::max<int64_t>(columns - j * kWords, 0))
                 : static_cast<__mmask16>(0));
}

// A tile's place: rows [t, t + rows), columns [column, column + columns).
struct TilePlace {
  int64_t t, rows, column, columns;
};

// acc = scale h c (+ out).
[[gnu::always_inline]] inline void begin_tile(const SummedOutput& p, const TilePlace& at,
                                              const uint32_t* packed_c,
                                              __m512 (&acc)[kRows][kVectors]) {
  clear_tile(acc);
  if (p.rank > 0) {
    multiply_tile(p.h + at.t * p.h_stride, p.h_stride, 2, at.rows, packed_c, kColumns, p.rank / 2,
                  acc);
    const __m512 scale = _mm512_set1_ps(p.scale);
    for_each_vector(at.rows, at.columns,
                    [&](int i, int j, __mmask16) { acc[i][j] = _mm512_mul_ps(acc[i][j], scale); });
  }
  if (!p.accumulate) return;
  const uint16_t* out = p.out + at.t * p.out_stride + at.column;
  for_each_vector(
      at.rows, at.columns, [&](int i, int j, __mmask16 mask) __attribute__((always_inline)) {
        acc[i][j] =
            _mm512_add_ps(acc[i][j], load_bfloat16(out + i * p.out_stride + j * kWords, mask));
      });
}

[[gnu::always_inline]] inline void store_tile(const SummedOutput& p, const TilePlace& at,
                                              const __m512 (&acc)[kRows][kVectors]) {
  if (p.onto != nullptr) {
    const int64_t first = at.t * p.out_stride + at.column;
    for_each_vector(
        at.rows, at.columns, [&](int i, int j, __mmask16 mask) __attribute__((always_inline)) {
          const int64_t place = first + i * p.out_stride + j * kWords;
          _mm512_mask_storeu_ps(
              p.wide_out + place, mask,
              _mm512_add_ps(_mm512_maskz_loadu_ps(mask, p.onto + place), acc[i][j]));
        });
    return;
  }
  uint16_t* out = p.out + at.t * p.out_stride + at.column;
  for_each_vector(
      at.rows, at.columns, [&](int i, int j, __mmask16 mask) __attribute__((always_inline)) {
        store_bfloat16(acc[i][j], out + i * p.out_stride + j * kWords, mask);
      });
}

// Columns [column, column + columns) of a product and rows [begin, end) of them.
template <typename Product>
struct Block {
  const Product* product;
  int64_t column, columns, begin, end;
};

// Divides products of m rows between threads: calls multiply(block) with all of a thread's rows of
// 48 columns at once.
template <typename Product, typename Multiply>
void for_each_block(int64_t m, std::span<const Product> products, const Multiply& multiply) {
  const auto blocks_of = [](const Product& p) { return (p.to.columns + kColumns - 1) / kColumns; };
  const int64_t units = (m + kUnit - 1) / kUnit;
  int64_t blocks = 0;
  for (const Product& p : products) blocks += blocks_of(p);
  // Item i is unit i % units of block i / units.
  parallel_for(blocks * units, 1, [&](int64_t begin, int64_t end) {
    const Product* p = products.data();
    int64_t first = 0;  // of p's blocks
    for (int64_t item = begin; item < end;) {
      const int64_t block = item / units, next = std::min(end, (block + 1) * units);
      while (block - first >= blocks_of(*p)) first += blocks_of(*p++);
      const int64_t column = (block - first) * kColumns;
      multiply(Block<Product>{p, column, std::min(kColumns, p->to.columns - column),
                              (item - block * units) * kUnit,
                              std::min(m, (next - block * units) * kUnit)});
      item = next;
    }
  });
}

// Calls multiply(tile) for the rows of a block.
template <typename Product, typename Multiply>
[[gnu::always_inline]] inline void for_each_tile(const Block<Product>& block,
                                                 const Multiply& multiply) {
  for (int64_t t = block.begin; t < block.end; t += kRows)
    multiply(TilePlace{t, std::min<int64_t>(kRows, block.end - t), block.column, block.columns});
}

}  // namespace qlora::quant::cpu
