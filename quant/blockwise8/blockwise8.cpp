#include "quant/blockwise8/blockwise8.h"

#include <ATen/ATen.h>

#include <bit>

#include "base/device.h"
#include "base/dispatch.h"
#include "quant/blockwise8/blockwise8_kernels.h"
#include "quant/elements/element_tensor.h"

namespace qlora::quant {
namespace {

void check_layout(const at::Tensor& map, int64_t block_size, at::Device device, const char* op) {
  check(block_size >= 64 && block_size <= 4096 &&
            std::has_single_bit(static_cast<uint64_t>(block_size)),
        "{}: block_size must be a power of two from 64 to 4096, got {}", op, block_size);
  check(map.scalar_type() == at::kFloat && map.numel() == 256 && map.is_contiguous() &&
            map.device() == device,
        "{}: the map must be a contiguous float32 tensor of 256 entries on {}", op, device.str());
}

}  // namespace

at::Tensor map_tensor(const DynamicMap& map, at::Device device) {
  at::Tensor result = at::empty({256}, at::kFloat);
  std::copy(map.begin(), map.end(), result.mutable_data_ptr<float>());
  return result.to(device);
}

Blockwise8Tensor quantize_blockwise8(const at::Tensor& x, const at::Tensor& map,
                                     int64_t block_size) {
  constexpr const char* kOp = "quantize_blockwise8";
  check_layout(map, block_size, x.device(), kOp);
  check(x.is_contiguous(), "{}: the tensor must be contiguous", kOp);
  const int64_t count = x.numel();
  Blockwise8Tensor result;
  result.codes = at::empty(x.sizes(), x.options().dtype(at::kByte));
  result.absmax = at::empty({(count + block_size - 1) / block_size}, x.options().dtype(at::kFloat));
  result.map = map;
  result.block_size = block_size;
  const Blockwise8QuantizeArguments arguments{x.const_data_ptr(),
                                              element_type(x, kOp),
                                              map.const_data_ptr<float>(),
                                              count,
                                              block_size,
                                              result.codes.mutable_data_ptr<uint8_t>(),
                                              result.absmax.mutable_data_ptr<float>()};
  QLORA_DISPATCH(x.device(), cpu::quantize_blockwise8(arguments),
                 cuda::quantize_blockwise8(arguments, current_stream(x.device())));
  check_finite_blocks(result.absmax, x, kOp);
  return result;
}

void dequantize_blockwise8(const Blockwise8Tensor& quantized, at::Tensor& out) {
  constexpr const char* kOp = "dequantize_blockwise8";
  const at::Tensor &codes = quantized.codes, &absmax = quantized.absmax;
  const int64_t count = codes.numel();
  check_layout(quantized.map, quantized.block_size, codes.device(), kOp);
  check(codes.scalar_type() == at::kByte && codes.is_contiguous(),
        "{}: codes must be contiguous uint8", kOp);
  check(absmax.scalar_type() == at::kFloat && absmax.is_contiguous() &&
            absmax.device() == codes.device() &&
            absmax.numel() == (count + quantized.block_size - 1) / quantized.block_size,
        "{}: absmax must hold one contiguous float32 for each of {} blocks of {}, got {}", kOp,
        (count + quantized.block_size - 1) / quantized.block_size, quantized.block_size,
        absmax.numel());
  check(out.is_contiguous() && out.device() == codes.device() && out.numel() == count,
        "{}: out must be contiguous, on {} and hold {} elements, got {}", kOp, codes.device().str(),
        count, out.numel());
  const Blockwise8DequantizeArguments arguments{codes.const_data_ptr<uint8_t>(),
                                                quantized.map.const_data_ptr<float>(),
                                                absmax.const_data_ptr<float>(),
                                                count,
                                                quantized.block_size,
                                                out.mutable_data_ptr(),
                                                element_type(out, kOp)};
  QLORA_DISPATCH(codes.device(), cpu::dequantize_blockwise8(arguments),
                 cuda::dequantize_blockwise8(arguments, current_stream(codes.device())));
}

}  // namespace qlora::quant
