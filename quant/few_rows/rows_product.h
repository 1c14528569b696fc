// The product of few rows of x with frozen weights on the CPU, as generation takes them token by
// token: y (+)= x Wᵀ. What bounds it is reading the weights, so each is read once, as it is stored,
// and nothing 16-bit is written; with more rows it pays to dequantize for a matrix library.
//
// Sums are fp32, each in an order of its own format's kernel that depends on neither the number of
// rows nor that of threads; each is rounded once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace qlora::quant {

class FrozenWeight;

// Up to how many rows x is multiplied so.
constexpr int64_t kFewRows = 8;

// One weight and one x, which was laid out as the weight's kernel wants it.
class RowsProduct {
 public:
  virtual ~RowsProduct() = default;
  // sums[t * stride + r - begin] = Σ_i x[t, i] W[r, i] for rows [begin, end) of W. Called by
  // several threads at once.
  virtual void sums(int64_t begin, int64_t end, float* sums, int64_t stride) const = 0;
};

// y [tokens, sum of out] (+)= x [W_1; W_2; ...]ᵀ, with an expert of each; x and y of one dtype with
// contiguous rows, for which this is the products' route (quant/products/product_routes.h).
void multiply_few_rows(const std::vector<const FrozenWeight*>& weights, const at::Tensor& x,
                       bool accumulate, at::Tensor& y, int64_t expert = 0);

// y (+)= scale x Wᵀ with one product; `in` is the number of terms of a sum.
void multiply_few_rows(const RowsProduct& product, int64_t in, float scale, bool accumulate,
                       at::Tensor& y);

}  // namespace qlora::quant
