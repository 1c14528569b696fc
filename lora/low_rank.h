// The products of adapters: thin matrices of rank rows or columns against activations. In bf16 on
// CPUs with AVX-512 BF16 they have kernels of their own (low_rank_kernels.h); few rows on any CPU
// are multiplied as with frozen weights (quant/few_rows/rows_product.h); everything else as
// quant/products/product.h chooses.
//
// Factors are 2-D and may be transposed views; activations have contiguous rows.
#pragma once

#include <ATen/core/Tensor.h>

namespace qlora::lora {

// h [tokens, rank] = scale x aᵀ: x [tokens, in], a [rank, in].
void low_rank_down(const at::Tensor& x, const at::Tensor& a, double scale, at::Tensor h);
// y [tokens, out] (+)= scale h bᵀ: h [tokens, rank], b [out, rank].
void low_rank_up(const at::Tensor& h, const at::Tensor& b, double scale, bool accumulate,
                 at::Tensor y);
// gradient [rank, in], fp32, += scale hᵀ x: h [tokens, rank], x [tokens, in].
void low_rank_gradient(const at::Tensor& h, const at::Tensor& x, double scale, at::Tensor gradient);

}  // namespace qlora::lora
