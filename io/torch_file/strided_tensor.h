// A tensor as torch describes it: elements of a storage, so many apart in each dimension.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/dtype.h"

namespace qlora::io {

constexpr size_t kMostDimensions = 16;

struct StridedTensor {
  std::span<const std::byte> storage;
  DType dtype = DType::kF32;
  int64_t offset = 0;                   // of the first element; in elements, as strides are
  std::vector<int64_t> sizes, strides;  // of each dimension
};

// Elements of the tensor. FormatError that begins with `place` if sizes, strides or offset are
// negative, are not equal in number or more than kMostDimensions, give more than 2^56 elements, or
// lead out of the storage.
int64_t checked_elements(const StridedTensor& tensor, const std::string& place);

// Of a tensor that was checked. Whether its elements follow each other in the storage in row-major
// order, and the bytes if they do.
bool is_contiguous(const StridedTensor& tensor);
std::span<const std::byte> contiguous_bytes(const StridedTensor& tensor, int64_t elements);

// Copies the elements of a tensor that was checked in row-major order; `to` has their bytes.
void gather(const StridedTensor& tensor, std::span<std::byte> to);

}  // namespace qlora::io
