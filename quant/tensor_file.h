// Named tensors to a safetensors file and back, whole.
#pragma once

#include <map>
#include <string>

#include "io/tensor_view.h"
#include "quant/frozen_weight.h"

namespace qlora::quant {

// Error for dtypes that safetensors cannot hold.
io::DType file_dtype(at::ScalarType dtype);
at::ScalarType tensor_dtype(io::DType dtype);

// A copy of a tensor that lies in a file. FormatError that names it if its type is none of torch's
// (U16, C64, blocks).
at::Tensor tensor_of(const io::TensorView& view);

// A copy of rows [first, first + count) of a tensor of at least one dimension that lies in a mapped
// file, whose pages of them are dropped. Error for block types.
at::Tensor rows_of(const io::TensorView& view, int64_t first, int64_t count);

// A copy of a tensor that lies in a mapped file; the pages of the file are dropped as they are
// copied, so that the tensor takes its memory once. Error for block types.
at::Tensor copy_from_file(const io::TensorView& view);

// Tensors of any device, written from contiguous copies on the CPU one by one, and flushed to disk.
void write_tensors(const std::string& path, const NamedTensors& tensors,
                   const std::map<std::string, std::string>& metadata = {});
// Every tensor of the file on the CPU, in memory of its own, as copy_from_file() gives it.
// FormatError, IoError.
NamedTensors read_tensors(const std::string& path);

}  // namespace qlora::quant
