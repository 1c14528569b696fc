#include "quant/gguf_weight.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "quant/element_tensor.h"
#include "quant/gguf_blocks.h"

namespace qlora::quant {

GgufWeight::GgufWeight(at::Tensor blocks, io::DType type, int64_t in)
    : blocks_(std::move(blocks)), type_(type), in_(in) {
  check(io::is_block_type(type) && in % io::elements_per_block(type) == 0 && blocks_.dim() == 2 &&
            blocks_.is_contiguous() && blocks_.is_cpu() && blocks_.scalar_type() == at::kByte &&
            blocks_.size(1) == in / io::elements_per_block(type) * io::bytes_per_block(type),
        "GgufWeight: rows of {} elements in {} need whole blocks on the CPU", in,
        io::dtype_name(type));
}

void GgufWeight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                 at::Tensor& out) const {
  constexpr const char* kOp = "GgufWeight";
  check(expert == 0, "{}: there is one expert, asked for {}", kOp, expert);
  check(0 <= begin && begin <= end && end <= out_features() && out.is_contiguous() &&
            out.numel() == (end - begin) * in_,
        "{}: rows [{}, {}) do not fit the weight or the output", kOp, begin, end);
  const auto* first = reinterpret_cast<const std::byte*>(blocks_.const_data_ptr<uint8_t>()) +
                      begin * blocks_.size(1);
  dequantize_gguf_blocks(type_, first, (end - begin) * in_, out.mutable_data_ptr(),
                         element_type(out, kOp));
}

NamedTensors GgufWeight::state() const { return {{"weight." + io::dtype_name(type_), blocks_}}; }

}  // namespace qlora::quant
