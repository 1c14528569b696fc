#include "quant/formats/mxfp4_weight.h"

#include <ATen/ATen.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/error.h"
#include "quant/elements/element_tensor.h"
#include "quant/formats/row_output.h"
#include "quant/mxfp4/mxfp4_kernels.h"

namespace qlora::quant {
namespace {

constexpr const char* kOp = "Mxfp4Weight";
constexpr int64_t kBlockBytes = kMxfp4Block / 2;

bool is_byte_matrix(const at::Tensor& tensor) {
  return tensor.dim() == 2 && tensor.numel() > 0 && tensor.scalar_type() == at::kByte &&
         tensor.is_contiguous();
}

}  // namespace

Mxfp4Weight::Mxfp4Weight(at::Tensor blocks, at::Tensor scales)
    : blocks_(std::move(blocks)), scales_(std::move(scales)) {
  check(is_byte_matrix(blocks_) && is_byte_matrix(scales_) && blocks_.device() == scales_.device(),
        "{}: blocks and scales must be contiguous uint8 matrices on one device", kOp);
  check(scales_.size(0) == blocks_.size(0) && scales_.size(1) * kBlockBytes == blocks_.size(1),
        "{}: blocks [out, in / 2] need scales [out, in / 32], found [{}, {}] and [{}, {}]", kOp,
        blocks_.size(0), blocks_.size(1), scales_.size(0), scales_.size(1));
}

void Mxfp4Weight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                  at::Tensor& out) const {
  check_row_output(*this, expert, begin, end, out, kOp);
  const Mxfp4DequantizeArguments arguments{
      blocks_.const_data_ptr<uint8_t>() + begin * blocks_.size(1),
      scales_.const_data_ptr<uint8_t>() + begin * scales_.size(1), (end - begin) * scales_.size(1),
      out.mutable_data_ptr(), element_type(out, kOp)};
  QLORA_DISPATCH(device(), cpu::dequantize_mxfp4(arguments),
                 cuda::dequantize_mxfp4(arguments, current_stream(device())));
}

FrozenSize mxfp4_size(int64_t out, int64_t in) {
  const int64_t scales = out * (in / kMxfp4Block);
  return {"mxfp4", kBlockBytes * scales + scales, {WeightKind::kDecoded, at::kFloat}, scales};
}

}  // namespace qlora::quant
