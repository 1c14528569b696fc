#include "quant/make_frozen_weight.h"

#include "base/error.h"
#include "quant/formats/four_bit_weight.h"
#include "quant/formats/int8_weight.h"

namespace qlora::quant {

bool is_skipped(const QuantizationOptions& options, const std::string& module) {
  const std::string path = "." + module + ".";
  for (const std::string& skip : options.skip_modules)
    if (path.find("." + skip + ".") != std::string::npos) return true;
  return false;
}

bool is_quantized(const QuantizationOptions& options, const std::string& module) {
  return options.method != "none" && options.method != "as_stored" && !is_skipped(options, module);
}

std::unique_ptr<FrozenWeight> make_frozen_weight(const at::Tensor& weight,
                                                 const QuantizationOptions& options,
                                                 const std::string& module) {
  if (!is_quantized(options, module)) return std::make_unique<DenseWeight>(weight);
  if (options.method == "nf4" || options.method == "fp4") {
    const FourBitCode code = options.method == "nf4" ? FourBitCode::kNf4 : FourBitCode::kFp4;
    return std::make_unique<FourBitWeight>(weight, FourBitLayout{code, options.block_size},
                                           options.double_quant, module + ".weight");
  }
  const bool weight_only = options.method == "int8_weight_only";
  check(options.method == "int8" || weight_only, "make_frozen_weight: unknown method '{}'",
        options.method);
  return std::make_unique<Int8Weight>(quantize_int8(weight, module + ".weight"),
                                      Int8Products{weight_only, options.threshold});
}

}  // namespace qlora::quant
