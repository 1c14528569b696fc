// Bytes of a file -> a tensor of the dtype that the model works in.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "io/tensor_view.h"

namespace qlora::model {

// The tensor on the CPU, in memory of its own, with `shape` and `dtype` (fp32, bf16 or fp16); its
// pages of the file are dropped. Decoding goes piece by piece: peak memory is the result and a few
// megabytes. FormatError naming file and tensor if the shape is another, the stored type is
// neither F64, F32, F16, BF16 nor one of GGUF's blocks, or a value is NaN, infinite, beyond 1e18 or
// beyond what fp16 holds.
at::Tensor read_tensor(const io::TensorView& view, const std::vector<int64_t>& shape,
                       at::ScalarType dtype);

// Rows [first, first + count) of a tensor of at least one dimension, likewise: on the CPU, with the
// tensor's shape but for `count` in place of the rows. The errors are those of read_tensor(); an
// element that they name is counted from the tensor's first.
at::Tensor read_rows(const io::TensorView& view, int64_t first, int64_t count,
                     at::ScalarType dtype);

// The errors of read_tensor, without the memory of a decoded matrix: 4 MB at a time.
void check_tensor(const io::TensorView& view, const std::vector<int64_t>& shape);

}  // namespace qlora::model
