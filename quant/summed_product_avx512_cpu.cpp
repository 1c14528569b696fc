// A thread packs the factors of 48 columns once and takes its rows through them, 8 at a time: 24
// sums stay in registers over all of k.
#include "quant/summed_product_kernels.h"

// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <algorithm>
#include <vector>

#include "base/parallel_for.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "base/bfloat16_tile_avx512.h"

namespace qlora::quant::cpu {
namespace {
using namespace avx512;

constexpr int kRows = 8, kVectors = 3;
constexpr int64_t kColumns = kVectors * kWords;
constexpr int64_t kUnit = 64;  // rows that are not divided between threads

// Room that lives until the next product of the same thread.
struct Packs {
  std::vector<uint32_t> b, c;
};
Packs& packs() {
  thread_local Packs room;
  return room;
}

void pack(const Factor& f, int64_t depth, int64_t column, int64_t columns,
          std::vector<uint32_t>& packed) {
  const auto words = static_cast<size_t>(depth / 2 * kColumns);
  if (packed.size() < words) packed.resize(words);
  if (f.column_stride == 1)
    pack_rows(f.data + column, f.row_stride, depth, columns, packed.data(), kColumns);
  else
    pack_transposed(f.data + column * f.column_stride, f.column_stride, depth, columns,
                    packed.data(), kColumns);
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

// Rows [t, t + rows) of columns [column, column + columns).
void multiply_block(const uint16_t* a, int64_t a_stride, int64_t k, const SummedProductArguments& p,
                    int64_t t, int64_t rows, int64_t column, int64_t columns, const Packs& packed) {
  __m512 acc[kRows][kVectors];
  clear_tile(acc);
  if (p.rank > 0) {
    multiply_tile(p.h + t * p.h_stride, p.h_stride, 2, rows, packed.c.data(), kColumns, p.rank / 2,
                  acc);
    const __m512 scale = _mm512_set1_ps(p.scale);
    for_each_vector(rows, columns,
                    [&](int i, int j, __mmask16) { acc[i][j] = _mm512_mul_ps(acc[i][j], scale); });
  }
  uint16_t* out = p.out + t * p.out_stride + column;
  if (p.accumulate)
    for_each_vector(
        rows, columns, [&](int i, int j, __mmask16 mask) __attribute__((always_inline)) {
          acc[i][j] =
              _mm512_add_ps(acc[i][j], load_bfloat16(out + i * p.out_stride + j * kWords, mask));
        });
  multiply_tile(a + t * a_stride, a_stride, 2, rows, packed.b.data(), kColumns, k / 2, acc);
  for_each_vector(
      rows, columns, [&](int i, int j, __mmask16 mask) __attribute__((always_inline)) {
        store_bfloat16(acc[i][j], out + i * p.out_stride + j * kWords, mask);
      });
}

int64_t blocks_of(const SummedProductArguments& p) { return (p.columns + kColumns - 1) / kColumns; }

}  // namespace

// With AMX oneDNN multiplies several times faster than these instructions can.
bool supports_summed_products_avx512() {
  return machine_has_them() && !__builtin_cpu_supports("amx-bf16");
}

void summed_products_avx512(const uint16_t* a, int64_t a_stride, int64_t m, int64_t k,
                            std::span<const SummedProductArguments> products) {
  const int64_t units = (m + kUnit - 1) / kUnit;
  int64_t blocks = 0;
  for (const SummedProductArguments& p : products) blocks += blocks_of(p);
  // Item i is unit i % units of block i / units: a thread's items share their packs.
  parallel_for(blocks * units, 1, [&](int64_t begin, int64_t end) {
    Packs& packed = packs();
    const SummedProductArguments* p = products.data();
    int64_t first = 0, packed_block = -1;  // of p's blocks; which one is packed
    for (int64_t item = begin; item < end; ++item) {
      const int64_t block = item / units, unit = item % units;
      while (block - first >= blocks_of(*p)) first += blocks_of(*p++);
      const int64_t column = (block - first) * kColumns;
      const int64_t columns = std::min(kColumns, p->columns - column);
      if (block != packed_block) {
        pack(p->b, k, column, columns, packed.b);
        if (p->rank > 0) pack(p->c, p->rank, column, columns, packed.c);
        packed_block = block;
      }
      const int64_t last = std::min(m, (unit + 1) * kUnit);
      for (int64_t t = unit * kUnit; t < last; t += kRows)
        multiply_block(a, a_stride, k, *p, t, std::min<int64_t>(kRows, last - t), column, columns,
                       packed);
    }
  });
}

}  // namespace qlora::quant::cpu
