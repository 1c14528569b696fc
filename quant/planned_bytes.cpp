#include "quant/planned_bytes.h"

#include "quant/make_frozen_weight.h"

namespace qlora::quant {
namespace {

// Of the scales, when they are quantized themselves (double_quant.h): elements a block, and the
// numbers of their map and offset.
constexpr int64_t kScaleBlock = 256, kMapNumbers = 256 + 1;

int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

}  // namespace

WeightBytes planned_weight_bytes(const QuantizationOptions& options, const std::string& module,
                                 int64_t out, int64_t in, int64_t dense_bytes) {
  const int64_t count = out * in;
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  if (options.method == "none" || options.method == "as_stored" || is_skipped(options, module))
    return {.weights = count * dense_bytes};
  if (options.method == "int8" || options.method == "int8_weight_only")
    return {.weights = count,
            .scales = out * kFloat,
            .quantized = true,
            .in_eight_bits = options.method == "int8"};
  const int64_t blocks = blocks_of(count, options.block_size);
  const int64_t scales = options.double_quant
                             ? blocks + kFloat * (blocks_of(blocks, kScaleBlock) + kMapNumbers)
                             : kFloat * blocks;
  return {.weights = (count + 1) / 2, .scales = scales, .quantized = true};
}

WeightBytes planned_block_bytes(io::DType type, int64_t out, int64_t in) {
  return {.weights = out * in / io::elements_per_block(type) * io::bytes_per_block(type),
          .quantized = true};
}

}  // namespace qlora::quant
