#include "quant/formats/fp8_weight.h"

#include <ATen/ATen.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/error.h"
#include "quant/elements/element_tensor.h"
#include "quant/formats/row_output.h"
#include "quant/fp8/fp8_kernels.h"

namespace qlora::quant {
namespace {

constexpr const char* kOp = "Fp8Weight";

Fp8ScaleType scale_type(const at::Tensor& scales) {
  if (scales.scalar_type() == at::kByte) return Fp8ScaleType::kE8M0;
  switch (element_type(scales, kOp)) {
    case ElementType::kFloat32:
      return Fp8ScaleType::kFloat32;
    case ElementType::kBFloat16:
      return Fp8ScaleType::kBFloat16;
    default:
      return Fp8ScaleType::kFloat16;
  }
}

int64_t blocks_of(int64_t count, int64_t block) { return (count + block - 1) / block; }

}  // namespace

std::string fp8_format_name(int64_t out, int64_t in, int64_t block_rows, int64_t block_columns) {
  if (block_columns >= in) {
    if (block_rows >= out) return "fp8 (tensor)";
    if (block_rows == 1) return "fp8 (channel)";
  }
  return fmt::format("fp8 ({}x{})", block_rows, block_columns);
}

Fp8Weight::Fp8Weight(Fp8Tensor weight) : weight_(std::move(weight)) {
  const auto& [codes, scales, block_rows, block_columns] = weight_;
  check(codes.dim() == 2 && codes.numel() > 0 && codes.scalar_type() == at::kByte &&
            codes.is_contiguous(),
        "{}: codes must be contiguous uint8 [out, in]", kOp);
  check(block_rows > 0 && block_columns > 0, "{}: blocks must have a size, found {} x {}", kOp,
        block_rows, block_columns);
  const int64_t rows = blocks_of(codes.size(0), block_rows);
  const int64_t columns = blocks_of(codes.size(1), block_columns);
  check(scales.is_contiguous() && scales.device() == codes.device() && scales.dim() == 2 &&
            scales.size(0) == rows && scales.size(1) == columns,
        "{}: [{}, {}] in blocks of {} x {} needs contiguous scales [{}, {}] on {}", kOp,
        codes.size(0), codes.size(1), block_rows, block_columns, rows, columns,
        codes.device().str());
  scale_type(scales);
}

int64_t Fp8Weight::bytes() const {
  return static_cast<int64_t>(weight_.codes.nbytes() + weight_.scales.nbytes());
}

void Fp8Weight::dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const {
  check_row_output(*this, expert, begin, end, out, kOp);
  const Fp8DequantizeArguments arguments{weight_.codes.const_data_ptr<uint8_t>(),
                                         weight_.scales.const_data_ptr(),
                                         scale_type(weight_.scales),
                                         in_features(),
                                         weight_.block_rows,
                                         weight_.block_columns,
                                         begin,
                                         end,
                                         out.mutable_data_ptr(),
                                         element_type(out, kOp)};
  QLORA_DISPATCH(device(), cpu::dequantize_fp8(arguments),
                 cuda::dequantize_fp8(arguments, current_stream(device())));
}

NamedTensors Fp8Weight::state() const {
  const bool powers = weight_.scales.scalar_type() == at::kByte;
  return {{"weight.F8_E4M3", weight_.codes},
          {powers ? "weight_scale.F8_E8M0" : "weight_scale", weight_.scales}};
}

}  // namespace qlora::quant
