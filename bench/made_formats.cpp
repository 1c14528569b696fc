#include "bench/made_formats.h"

#include <ATen/ATen.h>

#include <cstddef>
#include <utility>

#include "quant/formats/aqlm_weight.h"
#include "quant/formats/fp8_weight.h"
#include "quant/formats/gguf_weight.h"
#include "quant/formats/grouped_weight.h"
#include "quant/formats/hqq_weight.h"
#include "quant/formats/mxfp4_weight.h"
#include "quant/gguf/gguf_quantize.h"
#include "quant/make_frozen_weight.h"

namespace qlora::bench {
namespace {

using Weight = std::unique_ptr<quant::FrozenWeight>;

at::Tensor made_values(int64_t rows, int64_t columns) {
  at::manual_seed(1);
  return at::randn({rows, columns}) * 0.02;
}

MadeFormat quantized(const std::string& name, const std::string& method, bool double_quant = true) {
  return {name, [=](int64_t rows, int64_t columns) {
            quant::QuantizationOptions options;
            options.method = method;
            options.double_quant = double_quant;
            const at::Tensor weight = made_values(rows, columns).to(at::kBFloat16);
            return quant::make_frozen_weight(weight, options, "made");
          }};
}

MadeFormat grouped(const std::string& name, int bits, bool scattered = false) {
  return {name, [=](int64_t rows, int64_t columns) -> Weight {
            return std::make_unique<quant::GroupedWeight>(
                made_grouped(rows, columns, bits, scattered), name);
          }};
}

MadeFormat gguf(io::DType type) {
  return {
      "GGUF " + io::dtype_name(type),
      [=](int64_t rows, int64_t columns) -> Weight {
        const at::Tensor values = made_values(rows, columns);
        at::Tensor blocks = at::empty({rows, quant::gguf_size(type, 1, columns).bytes}, at::kByte);
        quant::quantize_gguf_blocks(
            type, values.const_data_ptr<float>(), values.numel(),
            reinterpret_cast<std::byte*>(blocks.mutable_data_ptr<uint8_t>()));
        return std::make_unique<quant::GgufWeight>(blocks, type, columns);
      },
      io::elements_per_block(type)};
}

Weight made_fp8(int64_t rows, int64_t columns) {
  const at::Tensor codes =
      (made_values(rows, columns) * 5000).to(at::kFloat8_e4m3fn).view(at::kByte);
  const at::Tensor scales = at::rand({(rows + 127) / 128, (columns + 127) / 128}) * 1e-4;
  return std::make_unique<quant::Fp8Weight>(quant::Fp8Tensor{codes, scales});
}

Weight made_mxfp4(int64_t rows, int64_t columns) {
  at::manual_seed(1);
  return std::make_unique<quant::Mxfp4Weight>(
      at::randint(0, 256, {rows, columns / 2}, at::kByte),
      at::randint(110, 125, {rows, columns / 32}, at::kByte));
}

// Groups of 64 down the columns.
Weight made_hqq(int64_t rows, int64_t columns) {
  at::manual_seed(1);
  quant::HqqTensor weight;
  weight.out = rows;
  weight.in = columns;
  weight.group_size = 64;
  weight.packed = at::randint(0, 256, {weight.packed_rows(), weight.columns()}, at::kByte);
  weight.scales = (at::rand({weight.groups()}) * 0.01).to(at::kHalf);
  weight.zeros = (at::rand({weight.groups()}) * 15).to(at::kHalf);
  return std::make_unique<quant::HqqWeight>(std::move(weight), "hqq, 4 bit");
}

// Groups of 8 columns.
MadeFormat aqlm(const std::string& name, int64_t codebooks, int bits) {
  return {
      name, [=](int64_t rows, int64_t columns) -> Weight {
        at::manual_seed(1);
        const at::ScalarType type = bits <= 8 ? at::kChar : at::kShort;
        const int64_t half = int64_t{1} << (bits - 1);
        quant::AqlmTensor weight;
        weight.codes = at::randint(-half, half, {rows, columns / 8, codebooks}, at::kInt).to(type);
        weight.codebooks = (at::randn({codebooks, 2 * half, 1, 8}) * 0.02).to(at::kHalf);
        weight.scales = (at::rand({rows}) + 0.5).to(at::kHalf);
        return std::make_unique<quant::AqlmWeight>(std::move(weight));
      }};
}

}  // namespace

quant::GroupedTensor made_grouped(int64_t rows, int64_t columns, int bits, bool scattered) {
  at::manual_seed(1);
  constexpr int64_t kGroupSize = 128;
  const int64_t groups = (columns - 1) / kGroupSize + 1;
  quant::GroupedTensor made;
  made.bits = bits;
  made.in = columns;
  made.group_size = kGroupSize;
  made.codes = quant::pack_codes(at::randint(0, 1 << bits, {rows, columns}, at::kByte), bits);
  made.scales = (at::rand({rows, groups}) * 0.01).to(at::kHalf);
  made.zeros = at::randint(0, 1 << bits, {rows, groups}, at::kByte);
  if (scattered) made.group_of = at::randperm(columns).div(kGroupSize, "floor").to(at::kInt);
  return made;
}

std::vector<MadeFormat> made_formats() {
  return {quantized("NF4, double quantization", "nf4"),
          quantized("NF4", "nf4", false),
          quantized("FP4, double quantization", "fp4"),
          quantized("int8, a scale a row (EETQ)", "int8_weight_only"),
          grouped("4 bit in groups (GPTQ, AWQ, compressed-tensors, HQQ)", 4),
          grouped("8 bit in groups", 8),
          grouped("3 bit in groups", 3),
          grouped("2 bit in groups", 2),
          grouped("4 bit, act order", 4, true),
          grouped("8 bit, act order", 8, true),
          grouped("3 bit, act order", 3, true),
          {"HQQ 4 bit, axis 0", made_hqq},
          aqlm("AQLM 2x8", 2, 8),
          aqlm("AQLM 1x16", 1, 16),
          {"FP8, blocks of 128 x 128", made_fp8},
          {"MXFP4", made_mxfp4},
          gguf(io::DType::kQ4_0),
          gguf(io::DType::kQ4_1),
          gguf(io::DType::kQ8_0),
          gguf(io::DType::kQ4_K),
          gguf(io::DType::kQ6_K)};
}

}  // namespace qlora::bench
