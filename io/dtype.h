// The element types of tensors in files. Kernels see this header too: nothing beyond C++17 here.
#pragma once

#include <cstdint>
#include <string>

namespace qlora::io {

// Element types of safetensors files plus the block types of GGUF that the program reads.
enum class DType {
  kBool,
  kU8,
  kI8,
  kI16,
  kU16,
  kI32,
  kU32,
  kI64,
  kU64,
  kF16,
  kBF16,
  kF32,
  kF64,
  kF8_E4M3,  // without infinities ("fn")
  kF8_E5M2,
  kF8_E8M0,  // 2^(byte - 127)
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kMXFP4,
  // Of safetensors files, which no weight of a model is read of.
  kF8_E4M3FNUZ,
  kF8_E5M2FNUZ,
  kC64,
};

// "F32", "BF16", "Q4_1", ...
std::string dtype_name(DType dtype);
// Elements that share one block (1 for plain types) and the bytes of that block.
int64_t elements_per_block(DType dtype);
int64_t bytes_per_block(DType dtype);
inline bool is_block_type(DType dtype) { return elements_per_block(dtype) > 1; }

}  // namespace qlora::io
