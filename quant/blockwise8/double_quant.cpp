#include "quant/blockwise8/double_quant.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <bit>

#include "base/error.h"
#include "quant/blockwise8/blockwise8.h"

namespace qlora::quant {
namespace {

constexpr int64_t kScaleBlockSize = 256;

// A parallel sum splits by thread count and would round differently from machine to machine.
at::Tensor mean_on_one_thread(const at::Tensor& values) {
  struct OneThread {
    int before = at::get_num_threads();
    OneThread() { at::set_num_threads(1); }
    ~OneThread() { at::set_num_threads(before); }
  } one_thread;
  return at::mean(values);
}

}  // namespace

DoubleQuantized double_quantize(const at::Tensor& absmax) {
  check(absmax.scalar_type() == at::kFloat && absmax.is_contiguous() && absmax.numel() > 0,
        "double_quantize: absmax must be a contiguous float32 tensor with at least one scale");
  const at::Tensor offset = absmax.is_cpu() ? mean_on_one_thread(absmax) : at::mean(absmax);
  const Blockwise8Tensor scales = quantize_blockwise8(
      at::sub(absmax, offset), map_tensor(signed_dynamic_map(), absmax.device()), kScaleBlockSize);
  return {scales.codes, scales.absmax, offset, scales.map, kScaleBlockSize};
}

at::Tensor restore_absmax(const DoubleQuantized& quantized) {
  at::Tensor absmax =
      at::empty(quantized.codes.sizes(), quantized.codes.options().dtype(at::kFloat));
  dequantize_blockwise8(
      {quantized.codes, quantized.nested_absmax, quantized.map, quantized.block_size}, absmax);
  return absmax.add_(quantized.offset);
}

void check_double_quantized(const DoubleQuantized& q, int64_t blocks, at::Device device) {
  const int64_t size = q.block_size;
  check(size >= 64 && size <= 4096 && std::has_single_bit(static_cast<uint64_t>(size)),
        "double quantization: the block size of the scales must be a power of two from 64 to 4096, "
        "got {}",
        size);
  const auto fits = [&](const at::Tensor& tensor, at::ScalarType type, int64_t count) {
    return tensor.defined() && tensor.scalar_type() == type && tensor.is_contiguous() &&
           tensor.device() == device && tensor.numel() == count;
  };
  check(fits(q.codes, at::kByte, blocks),
        "double quantization: the codes of {} scales must be uint8 on {}", blocks, device.str());
  check(fits(q.nested_absmax, at::kFloat, (blocks + size - 1) / size),
        "double quantization: {} scales in blocks of {} need {} float32 nested scales on {}",
        blocks, size, (blocks + size - 1) / size, device.str());
  check(fits(q.offset, at::kFloat, 1) && fits(q.map, at::kFloat, 256),
        "double quantization: the offset must be one float32 and the map 256, both on {}",
        device.str());
}

}  // namespace qlora::quant
