#include "quant/tensor_file.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "io/mapped_file.h"
#include "io/safetensors.h"

namespace qlora::quant {
namespace {

struct Pair {
  at::ScalarType tensor;
  io::DType file;
};

constexpr std::array<Pair, 13> kPairs = {{{at::kBool, io::DType::kBool},
                                          {at::kByte, io::DType::kU8},
                                          {at::kChar, io::DType::kI8},
                                          {at::kShort, io::DType::kI16},
                                          {at::kInt, io::DType::kI32},
                                          {at::kLong, io::DType::kI64},
                                          {at::kHalf, io::DType::kF16},
                                          {at::kBFloat16, io::DType::kBF16},
                                          {at::kFloat, io::DType::kF32},
                                          {at::kDouble, io::DType::kF64},
                                          {at::kFloat8_e4m3fn, io::DType::kF8_E4M3},
                                          {at::kFloat8_e5m2, io::DType::kF8_E5M2},
                                          {at::kFloat8_e8m0fnu, io::DType::kF8_E8M0}}};

std::optional<at::ScalarType> tensor_dtype_or_none(io::DType dtype) {
  for (const Pair& pair : kPairs)
    if (pair.file == dtype) return pair.tensor;
  return std::nullopt;
}

}  // namespace

io::DType file_dtype(at::ScalarType dtype) {
  for (const Pair& pair : kPairs)
    if (pair.tensor == dtype) return pair.file;
  fail<Error>("a safetensors file cannot hold tensors of type {}", c10::toString(dtype));
}

at::ScalarType tensor_dtype(io::DType dtype) {
  if (const auto type = tensor_dtype_or_none(dtype)) return *type;
  fail<Error>("there is no tensor type for {}", io::dtype_name(dtype));
}

at::Tensor tensor_of(const io::TensorView& view) {
  const auto type = tensor_dtype_or_none(view.dtype);
  if (!type)
    fail<FormatError>("{}: tensor {} is of type {}, which this version does not read", view.file,
                      view.name, io::dtype_name(view.dtype));
  at::Tensor tensor = at::empty(view.shape, at::TensorOptions().dtype(*type));
  if (!view.bytes.empty())
    std::memcpy(tensor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return tensor;
}

at::Tensor rows_of(const io::TensorView& view, int64_t first, int64_t count) {
  io::TensorView rows = view;
  rows.shape.front() = 1;
  const size_t row =
      static_cast<size_t>(rows.num_elements()) * c10::elementSize(tensor_dtype(view.dtype));
  rows.shape.front() = count;
  rows.bytes =
      view.bytes.subspan(static_cast<size_t>(first) * row, static_cast<size_t>(count) * row);
  at::Tensor tensor = tensor_of(rows);
  io::drop_touched_pages(rows.bytes);
  return tensor;
}

at::Tensor copy_from_file(const io::TensorView& view) {
  constexpr size_t kPiece = size_t{4} << 20;
  at::Tensor tensor = at::empty(view.shape, at::TensorOptions().dtype(tensor_dtype(view.dtype)));
  auto* to = static_cast<std::byte*>(tensor.mutable_data_ptr());
  for (size_t first = 0; first < view.bytes.size(); first += kPiece) {
    const auto piece = view.bytes.subspan(first, std::min(kPiece, view.bytes.size() - first));
    std::memcpy(to + first, piece.data(), piece.size());
    io::drop_touched_pages(piece);
  }
  return tensor;
}

void write_tensors(const std::string& path, const NamedTensors& tensors,
                   const std::map<std::string, std::string>& metadata) {
  std::vector<io::TensorHeader> headers;
  for (const auto& [name, tensor] : tensors)
    headers.push_back({name, file_dtype(tensor.scalar_type()), tensor.sizes().vec()});
  io::SafetensorsWriter writer(path, std::move(headers), metadata);
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor bytes = tensor.detach().cpu().contiguous();
    writer.write(name, {static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()});
  }
  writer.finish();
}

NamedTensors read_tensors(const std::string& path) {
  NamedTensors tensors;
  for (const io::TensorView& view : io::read_safetensors(path).tensors) {
    tensors.emplace_back(view.name, copy_from_file(view));
  }
  return tensors;
}

}  // namespace qlora::quant
