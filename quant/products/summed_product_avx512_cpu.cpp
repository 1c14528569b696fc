#include "quant/products/summed_product_kernels.h"

// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <algorithm>
#include <vector>

#include "base/parallel_for.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "base/bfloat16_tile_avx512.h"
#include "quant/products/summed_tile_avx512.h"

namespace qlora::quant::cpu {
namespace {

void multiply_block(const LeftFactor& a, const SummedOutput& to, const TilePlace& at,
                    const Packs& packed) {
  __m512 acc[kRows][kVectors];
  begin_tile(to, at, packed.c.data(), acc);
  multiply_tile(a.data + at.t * a.stride, a.stride, 2, at.rows, packed.b.data(), kColumns, a.k / 2,
                acc);
  store_tile(to, at, acc);
}

}  // namespace

void summed_products_avx512(const LeftFactor& a, std::span<const SummedProductArguments> products) {
  for_each_block(a.m, products, [&](const Block<SummedProductArguments>& block) {
    const SummedProductArguments& p = *block.product;
    Packs& packed = packs();
    pack(p.b, a.k, block.column, block.columns, packed.b);
    if (p.to.rank > 0) pack(p.to.c, p.to.rank, block.column, block.columns, packed.c);
    for_each_tile(block, [&](const TilePlace& at) { multiply_block(a, p.to, at, packed); });
  });
}

}  // namespace qlora::quant::cpu
