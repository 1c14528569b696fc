// Double quantization (QLoRA, section 3): the fp32 scales of a 4-bit weight, one per block, are
// themselves quantized to 8 bits.
//
//   offset               = mean(absmax)
//   codes, nested_absmax = blockwise 8-bit of (absmax - offset)
//   absmax[b]            ~ map[codes[b]] * nested_absmax[b / 256] + offset
//
// in blocks of 256 with the signed dynamic map (blockwise8.h). The last line is computed in fp32
// with two roundings.
//
// With 4-bit blocks of 64 a weight then takes 4 + 8/64 + 32/(64*256) = 4.127 bits instead of 4.5.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace qlora::quant {

struct DoubleQuantized {
  at::Tensor codes;          // uint8 [blocks]
  at::Tensor nested_absmax;  // fp32 [ceil(blocks / block_size)]
  at::Tensor offset;         // fp32, one element, on the same device
  at::Tensor map;            // fp32 [256]: what the codes stand for; stored beside them
  int64_t block_size = 256;  // of the scales
};

// absmax: contiguous fp32, finite. On the CPU the mean is at::mean on one thread, so that the
// offset does not depend on the thread count (the setting is restored; not to be called from
// several threads at once).
DoubleQuantized double_quantize(const at::Tensor& absmax);

// The scales as fp32 [blocks].
at::Tensor restore_absmax(const DoubleQuantized& quantized);

// Throws Error unless dtypes, devices and sizes fit `blocks` scales on `device`.
void check_double_quantized(const DoubleQuantized& quantized, int64_t blocks, at::Device device);

}  // namespace qlora::quant
