#include "quant/frozen_size.h"

#include "quant/make_frozen_weight.h"

namespace qlora::quant {
namespace {

// FourBitTensor::bytes(): the codes, and for scales a float32 a block, or an 8-bit scale a block
// with a float32 for 256 of them, the offset and the table of the scales.
FrozenSize four_bit_size(int64_t elements, at::ScalarType dtype,
                         const QuantizationOptions& options) {
  const WeightTraits traits{WeightKind::kDecoded, dtype};
  const int64_t blocks = (elements + options.block_size - 1) / options.block_size;
  const int64_t codes = (elements + 1) / 2;
  const int64_t scales =
      options.double_quant ? blocks + 4 * ((blocks + 255) / 256) + 4 + 4 * 256 : 4 * blocks;
  return {options.method + (options.double_quant ? "+dq" : ""), codes + scales, traits, scales};
}

}  // namespace

std::string dense_format(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return "bfloat16";
  return dtype == at::kHalf ? "float16" : "float32";
}

FrozenSize frozen_size(const WeightShape& shape, at::ScalarType dtype,
                       const QuantizationOptions& options, const std::string& module) {
  const int64_t elements = shape.num_elements();
  if (options.method == "none" || options.method == "as_stored" || is_skipped(options, module))
    return {dense_format(dtype),
            elements * static_cast<int64_t>(c10::elementSize(dtype)),
            {WeightKind::kStored, dtype}};
  if (options.method == "nf4" || options.method == "fp4")
    return four_bit_size(elements, dtype, options);
  const int64_t scales = 4 * shape.num_rows(), bytes = elements + scales;
  if (options.method == "int8") return {"int8", bytes, {WeightKind::kInt8, at::kFloat}, scales};
  return {"int8 (W8A16)", bytes, {WeightKind::kDecoded, at::kFloat}, scales};
}

}  // namespace qlora::quant
