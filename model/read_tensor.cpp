#include "model/read_tensor.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "io/mapped_file.h"
#include "quant/gguf/gguf_blocks.h"

namespace qlora::model {
namespace {

// A multiple of every block size.
constexpr int64_t kPieceElements = int64_t{1} << 20;

bool holds_weights(io::DType dtype) {
  return io::is_block_type(dtype) || dtype == io::DType::kF64 || dtype == io::DType::kF32 ||
         dtype == io::DType::kF16 || dtype == io::DType::kBF16;
}

// Beyond this, squares and sums of squares leave fp32: no model was trained with such weights.
constexpr double kLargestWeight = 1e18;
constexpr double kLargestHalf = 65504;

// `piece` as decoded, in fp32; `first` is the index of its first element.
void require_weights(const at::Tensor& piece, at::ScalarType dtype, const io::TensorView& view,
                     int64_t first) {
  const double limit = dtype == at::kHalf ? kLargestHalf : kLargestWeight;
  const auto [least, most] = at::aminmax(piece);  // NaN if there is one
  if (least.item<double>() >= -limit && most.item<double>() <= limit) return;
  const at::Tensor bad = at::logical_not(piece.abs() <= limit);
  const int64_t place = bad.nonzero()[0].item<int64_t>();
  const double value = piece[place].item<double>();
  if (dtype == at::kHalf && std::abs(value) <= kLargestWeight) {
    fail<FormatError>(
        "{}: tensor {} holds {} (element {}), more than float16 can; set model.dtype: bfloat16",
        view.file, view.name, value, first + place);
  }
  fail<FormatError>(
      "{}: tensor {} holds {} (element {}), which no trained weight is; the model file is damaged",
      view.file, view.name, std::isfinite(value) ? fmt::format("{:.3g}", value) : "NaN or infinity",
      first + place);
}

void require_readable(const io::TensorView& view, const std::vector<int64_t>& shape) {
  if (view.shape != shape) {
    fail<FormatError>("{}: tensor {} must have shape [{}], found [{}]", view.file, view.name,
                      fmt::join(shape, ", "), fmt::join(view.shape, ", "));
  }
  if (!holds_weights(view.dtype)) {
    fail<FormatError>("{}: tensor {} must hold weights in F64, F32, F16 or BF16, found {}",
                      view.file, view.name, io::dtype_name(view.dtype));
  }
}

// Elements of a tensor, which begin and end with a block of its type.
struct Elements {
  int64_t begin = 0, end = 0;
};

// `elements` in order as fp32, each a weight that `dtype` holds: take(index of the first, piece).
template <typename Take>
void for_each_piece(const io::TensorView& view, Elements elements, at::ScalarType dtype,
                    const Take& take) {
  at::NoGradGuard no_grad;
  const int64_t block = io::elements_per_block(view.dtype);
  const at::Tensor decoded =
      at::empty({std::min(elements.end - elements.begin, kPieceElements)}, at::kFloat);
  for (int64_t first = elements.begin; first < elements.end; first += kPieceElements) {
    const int64_t length = std::min(kPieceElements, elements.end - first);
    const std::byte* bytes = view.bytes.data() + first / block * io::bytes_per_block(view.dtype);
    quant::dequantize_gguf_blocks(view.dtype, bytes, length, decoded.data_ptr());
    const at::Tensor piece = decoded.narrow(0, 0, length);
    require_weights(piece, dtype, view, first);
    take(first, piece);
  }
}

at::Tensor read_elements(const io::TensorView& view, Elements elements,
                         const std::vector<int64_t>& shape, at::ScalarType dtype) {
  at::Tensor result = at::empty(shape, at::TensorOptions().dtype(dtype));
  const at::Tensor flat = result.view({-1});
  for_each_piece(view, elements, dtype, [&](int64_t first, const at::Tensor& piece) {
    flat.narrow(0, first - elements.begin, piece.numel()).copy_(piece);
  });
  return result;
}

}  // namespace

at::Tensor read_tensor(const io::TensorView& view, const std::vector<int64_t>& shape,
                       at::ScalarType dtype) {
  require_readable(view, shape);
  at::Tensor result = read_elements(view, {0, view.num_elements()}, shape, dtype);
  io::drop_pages(view.bytes);
  return result;
}

at::Tensor read_rows(const io::TensorView& view, int64_t first, int64_t count,
                     at::ScalarType dtype) {
  require_readable(view, view.shape);
  std::vector<int64_t> shape = view.shape;
  shape.front() = 1;
  int64_t row = 1;
  for (const int64_t size : shape) row *= size;
  shape.front() = count;
  at::Tensor result = read_elements(view, {first * row, (first + count) * row}, shape, dtype);
  io::drop_pages(view.bytes);
  return result;
}

void check_tensor(const io::TensorView& view, const std::vector<int64_t>& shape) {
  require_readable(view, shape);
  for_each_piece(view, {0, view.num_elements()}, at::kFloat, [](int64_t, const at::Tensor&) {});
}

}  // namespace qlora::model
