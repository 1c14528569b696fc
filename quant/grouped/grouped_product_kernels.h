// Products of few rows with grouped weights on the CPU (quant/few_rows/rows_product.h), straight
// from the codes: each becomes the float that dequantize_grouped() gives, of 4 bits by looking it
// up among the 16 of its group where groups are in order.
//
//   sums[t * stride + r - begin] = Σ_i x[t, i] W[r, i]
#pragma once

#include <cstdint>

#include "quant/grouped/grouped_kernels.h"

namespace qlora::quant::cpu {

constexpr int64_t kGroupUnit = 32;  // columns

// Whether there is a kernel, for rows of whole units: of groups in order, of whole units, for 4 and
// 8 bits; of groups that columns name, as has_scattered_product() says.
bool has_grouped_product(const GroupedRows& weight);

// One row of x [in], laid out as the kernel for the weight reads it: for 4 bits and groups in
// order, of 32 elements, for nibbles 4 n + j of the result is 8 j + n, what begins double word j
// once the codes were shifted right by n nibbles; else as it is.
void lay_out_for_groups(const GroupedRows& weight, const float* x, float* laid_out);

// For rows [begin, end) and x [tokens, in], laid out.
void multiply_grouped_rows(const GroupedRows& weight, const float* x, int64_t tokens, int64_t begin,
                           int64_t end, float* sums, int64_t stride);

// Of a weight whose columns name their groups: for 2, 3, 4 and 8 bits and whole zeros. Rows are
// multiplied side by side, as they are decoded (quant/grouped/scattered_loops.h).
bool has_scattered_product(const GroupedRows& weight);
void multiply_scattered(const GroupedRows& weight, const float* x, int64_t tokens, int64_t begin,
                        int64_t end, float* sums, int64_t stride);

}  // namespace qlora::quant::cpu
