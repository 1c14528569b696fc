// Products of few rows with grouped weights on the CPU (quant/few_rows/rows_product.h), straight
// from codes of 4 or 8 bits: each becomes the float that dequantize_grouped() gives, of 4 bits by
// looking it up among the 16 of its group.
//
//   sums[t * stride + r - begin] = Σ_i x[t, i] W[r, i]
#pragma once

#include <cstdint>

#include "quant/grouped/grouped_kernels.h"

namespace qlora::quant::cpu {

constexpr int64_t kGroupUnit = 32;  // columns

// Whether there is a kernel: for 4 and 8 bits, with rows and groups, in order, of whole units.
bool has_grouped_product(const GroupedRows& weight);

// One row of x [in], laid out as the kernel for `bits` reads it: of 32 elements, for nibbles
// 4 n + j of the result is 8 j + n, what begins double word j once the codes were shifted right by
// n nibbles.
void lay_out_for_groups(const float* x, int64_t in, int bits, float* laid_out);

// For rows [begin, end) and x [tokens, in], laid out.
void multiply_grouped_rows(const GroupedRows& weight, const float* x, int64_t tokens, int64_t begin,
                           int64_t end, float* sums, int64_t stride);

}  // namespace qlora::quant::cpu
