#include "quant/planned_bytes.h"

namespace qlora::quant {

WeightBytes loaded_weight_bytes(const std::string& format, int64_t bytes) {
  const bool dense = format == "bfloat16" || format == "float16" || format == "float32";
  return {.weights = bytes,
          .quantized = !dense,
          .in_eight_bits = format == "int8",
          .rounded = format.starts_with("nf4") || format.starts_with("fp4")};
}

WeightBytes planned_weight_bytes(const QuantizationOptions& options, const std::string& module,
                                 int64_t out, int64_t in, at::ScalarType dtype) {
  const FrozenSize size = frozen_size(WeightShape::matrix(out, in), dtype, options, module);
  WeightBytes result = loaded_weight_bytes(size.format, size.bytes);
  if (!result.quantized) return result;
  const bool eight = size.format.starts_with("int8");
  result.weights = eight ? out * in : (out * in + 1) / 2;
  result.scales = size.bytes - result.weights;
  return result;
}

WeightBytes planned_block_bytes(io::DType type, int64_t out, int64_t in) {
  return {.weights = out * in / io::elements_per_block(type) * io::bytes_per_block(type),
          .quantized = true};
}

}  // namespace qlora::quant
