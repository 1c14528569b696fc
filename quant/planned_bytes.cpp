#include "quant/planned_bytes.h"

namespace qlora::quant {

WeightBytes loaded_weight_bytes(const FrozenWeight& weight) {
  return {.weights = weight.bytes(), .traits = weight.traits()};
}

WeightBytes planned_weight_bytes(const QuantizationOptions& options, const std::string& module,
                                 int64_t out, int64_t in, at::ScalarType dtype) {
  const FrozenSize size = frozen_size(WeightShape::matrix(out, in), dtype, options, module);
  WeightBytes result{.weights = size.bytes, .traits = size.traits};
  if (size.traits.kind == WeightKind::kStored) return result;
  const bool eight = size.format.starts_with("int8");
  result.weights = eight ? out * in : (out * in + 1) / 2;
  result.scales = size.bytes - result.weights;
  return result;
}

WeightBytes planned_block_bytes(io::DType type, int64_t out, int64_t in) {
  return {.weights = out * in / io::elements_per_block(type) * io::bytes_per_block(type),
          .traits = {WeightKind::kDecoded, at::kFloat}};
}

}  // namespace qlora::quant
