#include "io/tensor_view.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace qlora::io {
namespace {

struct Facts {
  DType dtype;
  const char* name;
  int64_t elements, bytes;  // of a block
};

constexpr std::array<Facts, 30> kFacts = {{{DType::kBool, "BOOL", 1, 1},
                                           {DType::kU8, "U8", 1, 1},
                                           {DType::kI8, "I8", 1, 1},
                                           {DType::kI16, "I16", 1, 2},
                                           {DType::kU16, "U16", 1, 2},
                                           {DType::kI32, "I32", 1, 4},
                                           {DType::kU32, "U32", 1, 4},
                                           {DType::kI64, "I64", 1, 8},
                                           {DType::kU64, "U64", 1, 8},
                                           {DType::kF16, "F16", 1, 2},
                                           {DType::kBF16, "BF16", 1, 2},
                                           {DType::kF32, "F32", 1, 4},
                                           {DType::kF64, "F64", 1, 8},
                                           {DType::kF8_E4M3, "F8_E4M3", 1, 1},
                                           {DType::kF8_E5M2, "F8_E5M2", 1, 1},
                                           {DType::kF8_E8M0, "F8_E8M0", 1, 1},
                                           {DType::kQ4_0, "Q4_0", 32, 18},
                                           {DType::kQ4_1, "Q4_1", 32, 20},
                                           {DType::kQ5_0, "Q5_0", 32, 22},
                                           {DType::kQ5_1, "Q5_1", 32, 24},
                                           {DType::kQ8_0, "Q8_0", 32, 34},
                                           {DType::kQ2_K, "Q2_K", 256, 84},
                                           {DType::kQ3_K, "Q3_K", 256, 110},
                                           {DType::kQ4_K, "Q4_K", 256, 144},
                                           {DType::kQ5_K, "Q5_K", 256, 176},
                                           {DType::kQ6_K, "Q6_K", 256, 210},
                                           {DType::kMXFP4, "MXFP4", 32, 17},
                                           {DType::kF8_E4M3FNUZ, "F8_E4M3FNUZ", 1, 1},
                                           {DType::kF8_E5M2FNUZ, "F8_E5M2FNUZ", 1, 1},
                                           {DType::kC64, "C64", 1, 8}}};

const Facts& facts(DType dtype) {
  for (const Facts& entry : kFacts)
    if (entry.dtype == dtype) return entry;
  fail<Error>("there is no element type {}", static_cast<int>(dtype));
}

}  // namespace

bool same_bytes(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::ranges::equal(a.bytes, b.bytes);
}

std::string dtype_name(DType dtype) { return facts(dtype).name; }
int64_t elements_per_block(DType dtype) { return facts(dtype).elements; }
int64_t bytes_per_block(DType dtype) { return facts(dtype).bytes; }

}  // namespace qlora::io
