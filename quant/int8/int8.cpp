#include "quant/int8/int8.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/device.h"
#include "base/dispatch.h"
#include "quant/elements/element_tensor.h"
#include "quant/int8/int8_kernels.h"
#include "quant/products/code_product_kernels.h"
#include "quant/products/product.h"
#include "quant/products/summed_product.h"
#include "quant/weight_shape.h"

namespace qlora::quant {
namespace {

// What cuBLAS asks of an int8 product: rows beyond 16, and inner and outer sizes by 8.
constexpr int64_t kLeastGpuRows = 32, kGpuMultiple = 8;

void check_matrix(const at::Tensor& x, const char* op) {
  check(x.dim() == 2 && x.is_contiguous() && x.numel() > 0,
        "{}: need a contiguous [rows, columns] tensor with at least one element", op);
}

void run_quantize(const at::Tensor& x, double threshold, bool saturate, const Int8Tensor& result,
                  const at::Tensor& outliers, const char* op) {
  const Int8QuantizeArguments arguments{
      x.const_data_ptr(),
      element_type(x, op),
      x.size(0),
      x.size(1),
      static_cast<float>(threshold),
      saturate,
      result.codes.mutable_data_ptr<int8_t>(),
      result.absmax.mutable_data_ptr<float>(),
      outliers.defined() ? outliers.mutable_data_ptr<uint8_t>() : nullptr};
  QLORA_DISPATCH(x.device(), cpu::quantize_int8(arguments),
                 cuda::quantize_int8(arguments, current_stream(x.device())));
}

Int8Tensor empty_like_rows(const at::Tensor& x) {
  return {at::empty(x.sizes(), x.options().dtype(at::kChar)),
          at::empty({x.size(0)}, x.options().dtype(at::kFloat))};
}

// The first value of a row that cannot be had in 8 bits, and where it stands.
[[noreturn]] void fail_on_row(const at::Tensor& rows, int64_t row, const WeightShape& shape,
                              const std::string& name) {
  const at::Tensor bad = at::isfinite(rows[row].to(at::kHalf)).logical_not();
  const auto column = bad.nonzero()[0].item<int64_t>();
  fail<Error>(
      "quantize_int8: every element of {} must be a finite number that fp16 can hold, got {} in "
      "row {}, column {}{}",
      name, rows[row][column].item<float>(), row % shape.out, column,
      shape.stacked ? fmt::format(" of expert {}", row / shape.out) : "");
}

// codes_x codes_wᵀ in int32: oneDNN's VNNI product, cuBLAS's int8 tensor cores.
at::Tensor integer_product(const at::Tensor& x, const at::Tensor& weight) {
  if (!x.is_cuda()) return at::_int_mm(x, weight.t());
  if (x.size(0) >= kLeastGpuRows) return at::_int_mm(x, weight.t());
  const at::Tensor padded = at::zeros({kLeastGpuRows, x.size(1)}, x.options());
  padded.narrow(0, 0, x.size(0)).copy_(x);
  return at::_int_mm(padded, weight.t()).narrow(0, 0, x.size(0)).contiguous();
}

bool has_integer_product(const Int8Tensor& weight) {
  return !weight.codes.is_cuda() ||
         (weight.codes.size(0) % kGpuMultiple == 0 && weight.codes.size(1) % kGpuMultiple == 0);
}

}  // namespace

Int8Tensor quantize_int8(const at::Tensor& weight, const std::string& name) {
  constexpr const char* kOp = "quantize_int8";
  const WeightShape shape = WeightShape::of(weight.sizes().vec(), kOp);
  check(weight.is_contiguous(), "{}: {} must be contiguous", kOp, name);
  const at::Tensor rows = weight.view({shape.num_rows(), shape.in});
  Int8Tensor result = empty_like_rows(rows);
  run_quantize(rows, 0.0, false, result, at::Tensor(), kOp);
  const at::Tensor bad = at::isfinite(result.absmax).logical_not();
  if (bad.any().item<bool>()) fail_on_row(rows, bad.nonzero()[0].item<int64_t>(), shape, name);
  result.codes = result.codes.view(weight.sizes());
  return result;
}

void dequantize_int8(const Int8Tensor& weight, int64_t begin, int64_t end, at::Tensor& out) {
  constexpr const char* kOp = "dequantize_int8";
  const int64_t columns = weight.codes.size(1);
  check(0 <= begin && begin <= end && end <= weight.codes.size(0) && out.is_contiguous() &&
            out.numel() == (end - begin) * columns && out.device() == weight.codes.device(),
        "{}: rows [{}, {}) do not fit the weight or the output", kOp, begin, end);
  const Int8DequantizeArguments arguments{weight.codes.const_data_ptr<int8_t>() + begin * columns,
                                          weight.absmax.const_data_ptr<float>() + begin,
                                          end - begin,
                                          columns,
                                          out.mutable_data_ptr(),
                                          element_type(out, kOp)};
  QLORA_DISPATCH(out.device(), cpu::dequantize_int8(arguments),
                 cuda::dequantize_int8(arguments, current_stream(out.device())));
}

Int8Activation quantize_int8_activation(const at::Tensor& x, double threshold) {
  constexpr const char* kOp = "quantize_int8_activation";
  check_matrix(x, kOp);
  Int8Activation result;
  result.rows = empty_like_rows(x);
  at::Tensor flags;
  if (threshold > 0) flags = at::zeros({x.size(1)}, x.options().dtype(at::kByte));
  run_quantize(x, threshold, true, result.rows, flags, kOp);
  if (threshold > 0) {
    result.outliers = flags.nonzero().flatten();
    if (result.outliers.numel() > 0 && x.size(0) > 1)
      result.rows.codes.index_fill_(1, result.outliers, 0);
  } else {
    result.outliers = at::empty({0}, x.options().dtype(at::kLong));
  }
  return result;
}

at::Tensor int8_linear(const at::Tensor& x, const Int8Tensor& weight, double threshold) {
  constexpr const char* kOp = "int8_linear";
  at::NoGradGuard no_grad;
  check(x.dim() == 2 && x.size(1) == weight.codes.size(1) && x.device() == weight.codes.device(),
        "{}: the input must be [tokens, {}] on {}", kOp, weight.codes.size(1),
        weight.codes.device().str());
  if (multiplies_in_float(x) && x.size(1) <= cpu::kMostCodes) {
    const at::Tensor y = at::empty({x.size(0), weight.codes.size(0)}, x.options());
    multiply_summed_int8(x, threshold, {{weight, {.out = y, .accumulate = false}}});
    return y;
  }
  if (!has_integer_product(weight)) {
    at::Tensor dense = at::empty(weight.codes.sizes(), x.options());
    dequantize_int8(weight, 0, weight.codes.size(0), dense);
    return product(x, dense.t());
  }
  const Int8Activation input = quantize_int8_activation(x.contiguous(), threshold);
  const at::Tensor products = integer_product(input.rows.codes, weight.codes);
  at::Tensor y = at::empty(products.sizes(), x.options());
  const Int8ScaleArguments arguments{products.const_data_ptr<int32_t>(),
                                     products.size(0),
                                     products.size(1),
                                     input.rows.absmax.const_data_ptr<float>(),
                                     weight.absmax.const_data_ptr<float>(),
                                     y.mutable_data_ptr(),
                                     element_type(y, kOp)};
  QLORA_DISPATCH(x.device(), cpu::scale_int8_products(arguments),
                 cuda::scale_int8_products(arguments, current_stream(x.device())));
  if (input.outliers.numel() > 0) {
    const Int8Tensor columns{weight.codes.index_select(1, input.outliers), weight.absmax};
    at::Tensor dense = at::empty(columns.codes.sizes(), x.options());
    dequantize_int8(columns, 0, columns.codes.size(0), dense);
    multiply_into(x.index_select(1, input.outliers), dense.t(), true, y);
  }
  return y;
}

}  // namespace qlora::quant
