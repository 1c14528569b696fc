#include "model/mxfp4.h"

#include <ATen/ATen.h>

#include <array>
#include <cmath>

#include "base/error.h"
#include "io/mapped_file.h"

namespace qlora::model {
namespace {

constexpr std::array<float, 16> kValues = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                           -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
constexpr int kBias = 127, kLargestExponent = 60;  // no weight is beyond 1e18

void require_bytes(const io::TensorView& view) {
  if (view.dtype != io::DType::kU8)
    fail<FormatError>("{}: tensor {} must hold MXFP4 as U8, found {}", view.file, view.name,
                      io::dtype_name(view.dtype));
}

}  // namespace

at::Tensor decode_mxfp4(const io::TensorView& blocks, const io::TensorView& scales) {
  require_bytes(blocks);
  require_bytes(scales);
  const int64_t rows = scales.shape.at(0), n = scales.shape.at(1);
  at::Tensor decoded = at::empty({rows, n * kMxfp4Block}, at::kFloat);
  auto* out = decoded.mutable_data_ptr<float>();
  for (size_t block = 0; block < scales.bytes.size(); ++block) {
    const int exponent = std::to_integer<int>(scales.bytes[block]) - kBias;
    if (exponent > kLargestExponent)
      fail<FormatError>(
          "{}: tensor {} holds 2^{}, which scales no trained weight; the model file "
          "is damaged",
          scales.file, scales.name, exponent);
    const float scale = std::ldexp(1.0f, exponent);
    for (size_t i = 0; i < kMxfp4Block / 2; ++i) {
      const auto byte = std::to_integer<size_t>(blocks.bytes[block * kMxfp4Block / 2 + i]);
      *out++ = kValues[byte & 15] * scale;
      *out++ = kValues[byte >> 4] * scale;
    }
  }
  io::drop_pages(blocks.bytes);
  return decoded;
}

}  // namespace qlora::model
