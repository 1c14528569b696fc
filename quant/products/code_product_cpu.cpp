#include <algorithm>
#include <cstring>

#include "base/instruction_set.h"
#include "base/parallel_for.h"
#include "base/simd/codes.h"
#include "quant/few_rows/for_tokens.h"
#include "quant/products/code_product_kernels.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kFewCodeRows = 8;  // that do not pay for packing columns
constexpr int64_t kMostLanes = 16;   // to whose multiple rows are laid out

// Of one thread, until its next product.
int32_t* panel_room(int64_t words) {
  thread_local std::vector<int32_t> room;
  if (static_cast<int64_t>(room.size()) < words) room.resize(static_cast<size_t>(words));
  return room.data();
}

}  // namespace
}  // namespace qlora::quant::cpu

#define QLORA_SIMD_VNNI
#define QLORA_SIMD_LOOPS "quant/products/code_product_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

bool always() { return true; }

constexpr CodeProduct kCodeProducts[] = {
#ifdef __x86_64__
    {"AVX-512 VNNI", has_avx512_vnni, simd::avx512_vnni::kCodes, simd::avx512_vnni::lay_out,
     simd::avx512_vnni::multiply_codes},
    {"AVX-512, pairs of 16 bits", has_avx512, simd::avx512::kCodes, simd::avx512::lay_out,
     simd::avx512::multiply_codes},
    {"AVX-VNNI", has_avx_vnni, simd::avx_vnni::kCodes, simd::avx_vnni::lay_out,
     simd::avx_vnni::multiply_codes},
    {"AVX2, pairs of 16 bits", has_avx2, simd::avx2::kCodes, simd::avx2::lay_out,
     simd::avx2::multiply_codes},
#endif
    {"pairs of 16 bits", always, simd::baseline::kCodes, simd::baseline::lay_out,
     simd::baseline::multiply_codes},
};

// vpdpbusd adds x (w + 128).
int32_t start_of(const CodeProduct& kernel, const int8_t* codes, int64_t depth) {
  if (kernel.codes == 2) return 0;
  int32_t sum = 0;
  for (int64_t i = 0; i < depth; ++i) sum += codes[i];
  return -128 * sum;
}

}  // namespace

std::span<const CodeProduct> code_products() { return kCodeProducts; }

const CodeProduct& code_product() {
  return *std::ranges::find_if(kCodeProducts, [](const CodeProduct& p) { return p.supported(); });
}

LaidOutCodes lay_out_codes(const CodeProduct& kernel, const Int8Rows& rows, int64_t num_rows,
                           int64_t depth) {
  const int64_t words = (depth + kernel.codes - 1) / kernel.codes;
  const int64_t stride = (words + kMostLanes - 1) / kMostLanes * kMostLanes;
  LaidOutCodes laid_out{.kernel = &kernel,
                        .depth = depth,
                        .stride = stride,
                        .words = std::vector<int32_t>(static_cast<size_t>(num_rows * stride)),
                        .starts = std::vector<int32_t>(static_cast<size_t>(num_rows)),
                        .absmax = rows.absmax};
  parallel_for(num_rows, std::max<int64_t>(1, 65536 / stride), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int8_t* codes = rows.codes + row * rows.stride;
      kernel.lay_out(codes, depth, laid_out.words.data() + row * stride);
      laid_out.starts[static_cast<size_t>(row)] = start_of(kernel, codes, depth);
    }
  });
  return laid_out;
}

}  // namespace qlora::quant::cpu
