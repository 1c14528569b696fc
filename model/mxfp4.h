// MXFP4 (OCP Microscaling Formats 1.0) as gpt-oss' files hold it: blocks of 32 numbers of a row in
// 4 bits (E2M1), and for each block a power of two (E8M0).
#pragma once

#include <ATen/core/Tensor.h>

#include "io/tensor_view.h"

namespace qlora::model {

constexpr int64_t kMxfp4Block = 32;

// blocks uint8 [rows, n, 16], a byte's low half first; scales uint8 [rows, n], exponents plus 127
// -> fp32 [rows, 32 n]. FormatError naming the tensor if they are of another type, or a number is
// beyond what a weight can be.
at::Tensor decode_mxfp4(const io::TensorView& blocks, const io::TensorView& scales);

}  // namespace qlora::model
