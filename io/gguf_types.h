// The numbers of GGUF files (ggml's docs/gguf.md), shared by reader and writer.
#pragma once

#include <cstdint>
#include <string>

#include "io/tensor_view.h"

namespace qlora::io {

constexpr uint32_t kGgufMagic = 0x46554747;  // "GGUF"
constexpr uint32_t kGgufVersion = 3;         // what is written
constexpr uint32_t kGgufVersion2 = 2;        // of the same layout
constexpr uint64_t kGgufAlignment = 32;

enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// Least bytes that a value of this type takes; 1 for unknown types.
uint64_t smallest_size(uint32_t type);

// FormatError naming file, tensor and type if the program cannot read it.
DType dtype_of_ggml(uint32_t type, const std::string& path, const std::string& tensor);
// Error for what GGUF has no number for.
uint32_t ggml_type(DType dtype);

}  // namespace qlora::io
