#include "quant/gguf_weight.h"

#include <ATen/ATen.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/error.h"
#include "quant/element_tensor.h"
#include "quant/gguf_blocks.h"
#include "quant/gguf_kernels.h"

namespace qlora::quant {

GgufWeight::GgufWeight(at::Tensor blocks, io::DType type, int64_t in)
    : blocks_(std::move(blocks)),
      type_(type),
      shape_(WeightShape::of(blocks_.sizes().vec(), "GgufWeight")) {
  check(io::is_block_type(type) && in % io::elements_per_block(type) == 0 &&
            blocks_.is_contiguous() && blocks_.scalar_type() == at::kByte &&
            shape_.in == in / io::elements_per_block(type) * io::bytes_per_block(type),
        "GgufWeight: rows of {} elements in {} need whole blocks", in, io::dtype_name(type));
  shape_.in = in;
}

void GgufWeight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                 at::Tensor& out) const {
  constexpr const char* kOp = "GgufWeight";
  const int64_t first = shape_.first_row(expert, begin, end, kOp);
  const int64_t elements = (end - begin) * shape_.in;
  check(out.is_contiguous() && out.numel() == elements && out.device() == device(),
        "{}: the output must be contiguous, on {} and hold {} elements", kOp, device().str(),
        elements);
  const uint8_t* blocks =
      blocks_.const_data_ptr<uint8_t>() + first * blocks_.size(blocks_.dim() - 1);
  const GgufDequantizeArguments arguments{type_, blocks, elements, out.mutable_data_ptr(),
                                          element_type(out, kOp)};
  QLORA_DISPATCH(device(),
                 dequantize_gguf_blocks(type_, reinterpret_cast<const std::byte*>(blocks), elements,
                                        arguments.out, arguments.type),
                 cuda::dequantize_gguf_blocks(arguments, current_stream(device())));
}

NamedTensors GgufWeight::state() const { return {{"weight." + io::dtype_name(type_), blocks_}}; }

}  // namespace qlora::quant
