#include "quant/few_rows/dense_rows_product.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "base/instruction_set.h"
#include "quant/few_rows/dense_product_kernels.h"
#include "quant/frozen_weight.h"
#include "quant/products/product.h"

namespace qlora::quant {
namespace {

// Of rows that are decoded at once: as many as the nearest cache holds, but no fewer rows than some
// decoders take side by side.
constexpr int64_t kDecodedElements = 16 << 10, kLeastDecodedRows = 16;

// x as the kernels take it for weights of `dtype`, and the product with some of their rows.
class Multiplier {
 public:
  Multiplier(const at::Tensor& x, at::ScalarType dtype)
      : narrow_(dtype == at::kBFloat16 && x.scalar_type() == dtype && has_avx512_bfloat16()),
        x_(as(x, narrow_ ? dtype : at::kFloat)) {
    if (dtype == at::kFloat || narrow_) return;
    const at::Tensor from = x_;
    x_ = at::empty_like(from);
    for (int64_t t = 0; t < from.size(0); ++t)
      cpu::lay_out_pairs(from.const_data_ptr<float>() + t * in(), in(),
                         x_.mutable_data_ptr<float>() + t * in());
  }

  int64_t in() const { return x_.size(1); }
  const at::Tensor& x() const { return x_; }

  // Rows [begin, begin + count) of `rows`, of the weights' dtype.
  void multiply(const at::Tensor& rows, int64_t begin, int64_t count, float* sums,
                int64_t stride) const {
    const int64_t first = begin * in();
    if (rows.scalar_type() == at::kFloat)
      return cpu::multiply_rows(rows.const_data_ptr<float>() + first, count, in(),
                                x_.const_data_ptr<float>(), x_.size(0), sums, stride);
    if (rows.scalar_type() == at::kHalf)
      return cpu::multiply_rows(static_cast<const Float16*>(rows.const_data_ptr()) + first, count,
                                in(), x_.const_data_ptr<float>(), x_.size(0), sums, stride);
    const auto* bits = static_cast<const uint16_t*>(rows.const_data_ptr()) + first;
    if (narrow_)
      cpu::multiply_rows(bits, count, in(), static_cast<const uint16_t*>(x_.const_data_ptr()),
                         x_.size(0), sums, stride);
    else
      cpu::multiply_rows(bits, count, in(), x_.const_data_ptr<float>(), x_.size(0), sums, stride);
  }

 private:
  // Without a call to ATen where there is nothing to do.
  static at::Tensor as(const at::Tensor& x, at::ScalarType dtype) {
    return (x.scalar_type() == dtype ? x : x.to(dtype)).contiguous();
  }

  bool narrow_;
  at::Tensor x_;
};

class DenseRows final : public RowsProduct {
 public:
  DenseRows(at::Tensor weight, const at::Tensor& x)
      : weight_(std::move(weight)), multiplier_(x, weight_.scalar_type()) {}

  void sums(int64_t begin, int64_t end, float* sums, int64_t stride) const override {
    multiplier_.multiply(weight_, begin, end - begin, sums, stride);
  }

 private:
  at::Tensor weight_;
  Multiplier multiplier_;
};

class DequantizedRows final : public RowsProduct {
 public:
  DequantizedRows(const FrozenWeight& weight, int64_t expert, const at::Tensor& x)
      : weight_(weight), expert_(expert), dtype_(product_dtype(x)), multiplier_(x, dtype_) {}

  void sums(int64_t begin, int64_t end, float* sums, int64_t stride) const override {
    const int64_t in = multiplier_.in();
    const int64_t most = std::min(end - begin, std::max(kDecodedElements / in, kLeastDecodedRows));
    const at::Tensor buffer = at::empty({most, in}, multiplier_.x().options().dtype(dtype_));
    for (int64_t row = begin; row < end; row += most) {
      const int64_t count = std::min(most, end - row);
      at::Tensor rows = buffer.narrow(0, 0, count);
      weight_.dequantize_rows(expert_, row, row + count, rows);
      multiplier_.multiply(rows, 0, count, sums + row - begin, stride);
    }
  }

 private:
  const FrozenWeight& weight_;
  int64_t expert_;
  at::ScalarType dtype_;
  Multiplier multiplier_;
};

}  // namespace

std::unique_ptr<RowsProduct> dense_rows_product(const at::Tensor& weight, const at::Tensor& x) {
  const at::ScalarType dtype = weight.scalar_type();
  check(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf,
        "dense_rows_product: the weight must be float32, bfloat16 or float16, got {}",
        c10::toString(dtype));
  return std::make_unique<DenseRows>(weight, x);
}

std::unique_ptr<RowsProduct> dequantized_rows_product(const FrozenWeight& weight, int64_t expert,
                                                      const at::Tensor& x) {
  return std::make_unique<DequantizedRows>(weight, expert, x);
}

}  // namespace qlora::quant
