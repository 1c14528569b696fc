// A named tensor as it lies in a file: element type, shape, bytes. Knows no torch and no model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/dtype.h"

namespace qlora::io {

struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;         // row-major, PyTorch order: [out, in]
  std::span<const std::byte> bytes;   // exactly the tensor's bytes; may be unaligned
  std::shared_ptr<const void> owner;  // keeps `bytes` alive (a mapped file, a buffer); may be null
  std::string file;                   // where it came from, for messages

  int64_t num_elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

// Whether both have one type, one shape and one content.
bool same_bytes(const TensorView& a, const TensorView& b);

}  // namespace qlora::io
