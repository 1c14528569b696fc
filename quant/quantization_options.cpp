#include "quant/quantization_options.h"

#include <fmt/ranges.h>

#include <bit>

#include "base/error.h"

namespace qlora::quant {

void QuantizationOptions::validate() const {
  if (method != "nf4" && method != "fp4" && method != "none" && method != "as_stored") {
    fail<ConfigError>("quantization.method must be nf4, fp4, none or as_stored, found '{}'",
                      method);
  }
  if (block_size < 32 || block_size > 4096 ||
      !std::has_single_bit(static_cast<uint64_t>(block_size))) {
    fail<ConfigError>("quantization.block_size must be a power of two from 32 to 4096, found {}",
                      block_size);
  }
}

std::string QuantizationOptions::to_text() const {
  if (method == "none" || method == "as_stored") return "none";
  return fmt::format("{}, block size {}, {}, without [{}]", method, block_size,
                     double_quant ? "double quantization" : "plain scales",
                     fmt::join(skip_modules, " "));
}

}  // namespace qlora::quant
