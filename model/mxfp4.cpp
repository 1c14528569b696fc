#include "model/mxfp4.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "io/mapped_file.h"
#include "quant/mxfp4/mxfp4_kernels.h"
#include "quant/tensor_file.h"

namespace qlora::model {
namespace {

static_assert(kMxfp4Block == quant::kMxfp4Block);

constexpr int kBias = 127, kLargestExponent = 60;  // no weight is beyond 1e18

void require_bytes(const io::TensorView& view) {
  if (view.dtype != io::DType::kU8)
    fail<FormatError>("{}: tensor {} must hold MXFP4 as U8, found {}", view.file, view.name,
                      io::dtype_name(view.dtype));
}

void require_weights(const io::TensorView& blocks, const io::TensorView& scales) {
  require_bytes(blocks);
  require_bytes(scales);
  for (const std::byte scale : scales.bytes)
    if (const int exponent = std::to_integer<int>(scale) - kBias; exponent > kLargestExponent)
      fail<FormatError>(
          "{}: tensor {} holds 2^{}, which scales no trained weight; the model file "
          "is damaged",
          scales.file, scales.name, exponent);
}

const uint8_t* bytes_of(const io::TensorView& view) {
  return reinterpret_cast<const uint8_t*>(view.bytes.data());
}

}  // namespace

Mxfp4Matrix read_mxfp4(const io::TensorView& blocks, const io::TensorView& scales) {
  require_weights(blocks, scales);
  Mxfp4Matrix matrix{quant::tensor_of(blocks).flatten(1), quant::tensor_of(scales)};
  io::drop_pages(blocks.bytes);
  return matrix;
}

at::Tensor decode_mxfp4(const io::TensorView& blocks, const io::TensorView& scales) {
  require_weights(blocks, scales);
  const int64_t rows = scales.shape.at(0), n = scales.shape.at(1);
  at::Tensor decoded = at::empty({rows, n * kMxfp4Block}, at::kFloat);
  quant::cpu::dequantize_mxfp4({bytes_of(blocks), bytes_of(scales), rows * n,
                                decoded.mutable_data_ptr<float>(), quant::ElementType::kFloat32});
  io::drop_pages(blocks.bytes);
  return decoded;
}

}  // namespace qlora::model
