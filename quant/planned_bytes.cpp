#include "quant/planned_bytes.h"

namespace qlora::quant {

WeightBytes by_purpose(const FrozenSize& size) {
  return {
      .weights = size.bytes - size.scale_bytes, .scales = size.scale_bytes, .traits = size.traits};
}

WeightBytes loaded_weight_bytes(const FrozenWeight& weight) {
  return {.weights = weight.bytes(), .traits = weight.traits()};
}

WeightBytes planned_weight_bytes(const QuantizationOptions& options, const std::string& module,
                                 int64_t out, int64_t in, at::ScalarType dtype) {
  return by_purpose(frozen_size(WeightShape::matrix(out, in), dtype, options, module));
}

WeightBytes planned_block_bytes(io::DType type, int64_t out, int64_t in) {
  return {.weights = out * in / io::elements_per_block(type) * io::bytes_per_block(type),
          .traits = {WeightKind::kDecoded, at::kFloat}};
}

}  // namespace qlora::quant
