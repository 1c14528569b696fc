// Large matrices compared some rows at a time: whole copies of an embedding in fp32 would be the
// largest tensors of a run.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

namespace qlora {

// Whether same(first, count) holds for all rows [first, first + count).
template <typename Same>
bool all_rows(int64_t rows, const Same& same) {
  constexpr int64_t kAtOnce = 1024;
  for (int64_t first = 0; first < rows; first += kAtOnce)
    if (!same(first, std::min(kAtOnce, rows - first))) return false;
  return true;
}

// Whether two tensors of at least one dimension have one shape and, in whatever types, the same
// numbers.
bool are_equal(const at::Tensor& a, const at::Tensor& b);

}  // namespace qlora
