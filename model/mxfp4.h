// MXFP4 (OCP Microscaling Formats 1.0) as gpt-oss' files hold it: blocks of 32 numbers of a row in
// 4 bits (E2M1), and for each block a power of two (E8M0).
#pragma once

#include <ATen/core/Tensor.h>

#include "io/tensor_view.h"

namespace qlora::model {

constexpr int64_t kMxfp4Block = 32;

// The bytes of a matrix as a quant::Mxfp4Weight takes them.
struct Mxfp4Matrix {
  at::Tensor blocks;  // uint8 [rows, 16 n]
  at::Tensor scales;  // uint8 [rows, n]
};

// A copy of blocks uint8 [rows, n, 16], a byte's low half first, and scales uint8 [rows, n],
// exponents plus 127. FormatError naming the tensor if they are of another type, or a number is
// beyond what a weight can be.
Mxfp4Matrix read_mxfp4(const io::TensorView& blocks, const io::TensorView& scales);

// The same decoded to fp32 [rows, 32 n].
at::Tensor decode_mxfp4(const io::TensorView& blocks, const io::TensorView& scales);

}  // namespace qlora::model
