#include "quant/quantization_options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>

#include "base/faults.h"

namespace qlora::quant {

void QuantizationOptions::validate() const { require_no_faults(*this); }

void QuantizationOptions::find_faults(Faults& faults) const {
  constexpr const char* kMethods[] = {"nf4",  "fp4",      "int8", "int8_weight_only",
                                      "none", "as_stored"};
  const bool is_known =
      std::find(std::begin(kMethods), std::end(kMethods), method) != std::end(kMethods);
  if (!is_known) {
    faults.add("quantization.method must be one of {}, found '{}'", fmt::join(kMethods, ", "),
               method);
  }
  if (!(threshold >= 0) || !std::isfinite(threshold)) {
    faults.add("quantization.threshold must be a number >= 0 (0: no outlier columns), found {}",
               threshold);
  }
  if (block_size < 32 || block_size > 4096 ||
      !std::has_single_bit(static_cast<uint64_t>(block_size))) {
    faults.add("quantization.block_size must be a power of two from 32 to 4096, found {}",
               block_size);
  }
  if (!is_known) return;  // what else there may be depends on it
  const QuantizationOptions defaults;
  const bool four_bit = method == "nf4" || method == "fp4";
  if (!four_bit && block_size != defaults.block_size) {
    faults.add(
        "quantization.block_size is of nf4 and fp4, and the method is {}; leave it out, or give a "
        "method of 4 bits",
        method);
  }
  if (!method.starts_with("int8") && threshold != defaults.threshold) {
    faults.add(
        "quantization.threshold is of int8, and the method is {}; leave it out, or write int8",
        method);
  }
  if (fp32_cpu_offload && method != "int8")
    faults.add(
        "quantization.fp32_cpu_offload is of int8, and the method is {}; leave it out (blocks on "
        "the cpu or on disk are then quantized as all others), or write int8",
        method);
}

std::string QuantizationOptions::to_text() const {
  if (method == "none") return "none";
  if (method == "as_stored") return "as stored";
  if (method == "int8")
    return fmt::format("int8, threshold {}, without [{}]", threshold, fmt::join(skip_modules, " "));
  if (method == "int8_weight_only")
    return fmt::format("int8 weights only, without [{}]", fmt::join(skip_modules, " "));
  return fmt::format("{}, block size {}, {}, without [{}]", method, block_size,
                     double_quant ? "double quantization" : "plain scales",
                     fmt::join(skip_modules, " "));
}

}  // namespace qlora::quant
