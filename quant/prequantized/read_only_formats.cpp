#include "quant/prequantized/read_only_formats.h"

#include <fmt/format.h>

#include <algorithm>

namespace qlora::quant {
namespace {

constexpr const char* kFourBits =
    "its quantizer is not here; qlora quantize --method gptq or hqq writes 4 bits in groups";
constexpr const char* kEightBits =
    "its quantizer is not here; qlora quantize --method int8 writes 8 bits";

}  // namespace

std::string ReadOnlyFormat::sentence() const {
  return fmt::format("{} is read, not written: {}", name, reason);
}

const std::vector<ReadOnlyFormat>& read_only_formats() {
  static const std::vector<ReadOnlyFormat> formats = {
      {"aqlm", "AQLM",
       "its codebooks cannot hold a merged adapter; qlora export --format merged writes 16 bit"},
      {"awq", "AWQ", kFourBits},
      {"auto-round", "auto-round", kFourBits},
      {"compressed-tensors", "compressed-tensors", kFourBits},
      {"mxfp4", "MXFP4",
       "its quantizer is not here; qlora quantize --method nf4 or fp4 writes 4 bits"},
      {"eetq", "EETQ", kEightBits},
      {"fp8", "FP8", kEightBits},
      {"fbgemm_fp8", "FP8", kEightBits},
      {"mxfp8", "FP8", kEightBits},
      {"torchao", "torchao", kEightBits}};
  return formats;
}

const ReadOnlyFormat* find_read_only_format(const std::string& method_or_name) {
  const std::vector<ReadOnlyFormat>& formats = read_only_formats();
  const auto found = std::ranges::find_if(formats, [&](const ReadOnlyFormat& format) {
    return format.method == method_or_name || format.name == method_or_name;
  });
  return found == formats.end() ? nullptr : &*found;
}

}  // namespace qlora::quant
