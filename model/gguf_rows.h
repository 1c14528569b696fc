// The order in which GGUF files hold the rows of queries, keys and values (RowOrder in mlp_spec.h),
// as a matrix [rows, ...] or a bias [rows].
#pragma once

#include <ATen/core/Tensor.h>

#include "model/gguf_names.h"

namespace qlora::model {

// As Hugging Face orders them, and back. Rows in any other order than the two of RowOrder that
// differ come back as they are.
at::Tensor rows_from_gguf(const at::Tensor& rows, const GgufTensor& stored);
at::Tensor rows_to_gguf(const at::Tensor& rows, const GgufTensor& stored);

}  // namespace qlora::model
