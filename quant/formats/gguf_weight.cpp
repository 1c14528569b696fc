#include "quant/formats/gguf_weight.h"

#include <ATen/ATen.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/error.h"
#include "quant/elements/element_tensor.h"
#include "quant/gguf/gguf_blocks.h"
#include "quant/gguf/gguf_kernels.h"
#include "quant/gguf/gguf_product_kernels.h"

namespace qlora::quant {
namespace {

class BlockRows final : public RowsProduct {
 public:
  // blocks: of row 0; kept alive.
  BlockRows(at::Tensor blocks, io::DType type, const at::Tensor& x)
      : blocks_(std::move(blocks)),
        type_(type),
        x_(x.to(at::kFloat).contiguous()),
        x_sums_(at::empty({x.size(0), x.size(1) / 32}, x_.options())) {
    for (int64_t t = 0; t < x_.size(0); ++t)
      cpu::sum_gguf_blocks(x_.const_data_ptr<float>() + t * in(), in(),
                           x_sums_.mutable_data_ptr<float>() + t * x_sums_.size(1));
  }

  void sums(int64_t begin, int64_t end, float* sums, int64_t stride) const override {
    const cpu::GgufRows rows{type_, blocks_.const_data_ptr<uint8_t>() + begin * blocks_.size(1),
                             in()};
    cpu::multiply_gguf_rows(rows, end - begin, x_.const_data_ptr<float>(),
                            x_sums_.const_data_ptr<float>(), x_.size(0), sums, stride);
  }

 private:
  int64_t in() const { return x_.size(1); }

  at::Tensor blocks_;  // [rows, bytes of a row]
  io::DType type_;
  at::Tensor x_, x_sums_;
};

}  // namespace

bool has_few_rows_kernel(const std::string& type_name) {
  for (const io::DType type :
       {io::DType::kQ4_0, io::DType::kQ4_1, io::DType::kQ8_0, io::DType::kMXFP4})
    if (io::dtype_name(type) == type_name) return cpu::has_gguf_rows(type);
  return false;
}

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

std::unique_ptr<RowsProduct> GgufWeight::rows_product(const at::Tensor& x, int64_t expert) const {
  if (!cpu::has_gguf_rows(type_)) return FrozenWeight::rows_product(x, expert);
  const int64_t first = shape_.first_row(expert, 0, shape_.out, "GgufWeight");
  const at::Tensor rows = blocks_.view({-1, blocks_.size(blocks_.dim() - 1)});
  return std::make_unique<BlockRows>(rows.narrow(0, first, shape_.out), type_, x);
}

FrozenSize gguf_size(io::DType type, int64_t out, int64_t in) {
  return {io::dtype_name(type),
          out * in / io::elements_per_block(type) * io::bytes_per_block(type),
          {WeightKind::kDecoded, at::kFloat}};
}

NamedTensors GgufWeight::state() const { return {{"weight." + io::dtype_name(type_), blocks_}}; }

}  // namespace qlora::quant
