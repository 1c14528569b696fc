#include "quant/planned_bytes.h"

#include "quant/formats/gguf_weight.h"

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
  return by_purpose(gguf_size(type, out, in));
}

}  // namespace qlora::quant
