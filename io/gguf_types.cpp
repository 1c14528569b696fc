#include "io/gguf_types.h"

#include <array>
#include <utility>

#include "base/error.h"

namespace qlora::io {
namespace {

struct Entry {
  uint32_t number;
  DType dtype;
};

constexpr std::array<Entry, 19> kTypes = {{{0, DType::kF32},
                                           {1, DType::kF16},
                                           {2, DType::kQ4_0},
                                           {3, DType::kQ4_1},
                                           {6, DType::kQ5_0},
                                           {7, DType::kQ5_1},
                                           {8, DType::kQ8_0},
                                           {10, DType::kQ2_K},
                                           {11, DType::kQ3_K},
                                           {12, DType::kQ4_K},
                                           {13, DType::kQ5_K},
                                           {14, DType::kQ6_K},
                                           {24, DType::kI8},
                                           {25, DType::kI16},
                                           {26, DType::kI32},
                                           {27, DType::kI64},
                                           {28, DType::kF64},
                                           {30, DType::kBF16},
                                           {39, DType::kMXFP4}}};

// Types that llama.cpp knows and this program does not read, for the message.
std::string name_of_unread(uint32_t type) {
  constexpr std::array<std::pair<uint32_t, const char*>, 14> kNames = {{{9, "Q8_1"},
                                                                        {15, "Q8_K"},
                                                                        {16, "IQ2_XXS"},
                                                                        {17, "IQ2_XS"},
                                                                        {18, "IQ3_XXS"},
                                                                        {19, "IQ1_S"},
                                                                        {20, "IQ4_NL"},
                                                                        {21, "IQ3_S"},
                                                                        {22, "IQ2_S"},
                                                                        {23, "IQ4_XS"},
                                                                        {29, "IQ1_M"},
                                                                        {34, "TQ1_0"},
                                                                        {35, "TQ2_0"},
                                                                        {40, "NVFP4"}}};
  for (const auto& [number, name] : kNames)
    if (number == type) return name;
  return fmt::format("number {}", type);
}

}  // namespace

uint64_t smallest_size(uint32_t type) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
    case GgufType::kString:
      return 8;
    default:
      return 1;
  }
}

DType dtype_of_ggml(uint32_t type, const std::string& path, const std::string& tensor) {
  for (const Entry& entry : kTypes)
    if (entry.number == type) return entry.dtype;
  fail<FormatError>(
      "{}: tensor {} has the GGUF type {}, which this version cannot read; it reads F32, F16, "
      "BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K and MXFP4",
      path, tensor, name_of_unread(type));
}

uint32_t ggml_type(DType dtype) {
  for (const Entry& entry : kTypes)
    if (entry.dtype == dtype) return entry.number;
  fail<Error>("GGUF has no type for {}", dtype_name(dtype));
}

}  // namespace qlora::io
