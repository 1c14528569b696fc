// The leading singular triplets of a matrix.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace qlora::lora {

struct TruncatedSvd {
  at::Tensor u, s, vh;  // fp32 [rows, rank], [rank] descending, [rank, columns]
};

// matrix: fp32 [rows, columns]; rank at most the smaller side. Exact (LAPACK), or randomized: a
// Gaussian sketch of rank + 16 columns drawn from `key`, sharpened by four power iterations with
// orthonormalisation (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1). The randomized one
// is exact where the sketch would span the matrix anyway, or is not finite.
TruncatedSvd truncated_svd(const at::Tensor& matrix, int64_t rank, bool exact, uint64_t key);

}  // namespace qlora::lora
