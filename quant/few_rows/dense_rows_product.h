// Products of few rows (rows_product.h) with weights that lie in memory as they are multiplied, and
// with those that are decoded a few rows at a time, which then stay in the nearest cache.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "quant/few_rows/rows_product.h"

namespace qlora::quant {

// weight: [out, in], contiguous, float32, bfloat16 or float16; kept alive.
std::unique_ptr<RowsProduct> dense_rows_product(const at::Tensor& weight, const at::Tensor& x);
// Of an expert's rows as product_dtype(x); `weight` must outlive the product.
std::unique_ptr<RowsProduct> dequantized_rows_product(const FrozenWeight& weight, int64_t expert,
                                                      const at::Tensor& x);

}  // namespace qlora::quant
