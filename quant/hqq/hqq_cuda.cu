// HQQ on CUDA: a thread decodes an element. Neighbouring threads read neighbouring fields, and one
// scale or neighbouring ones. Places are divided in 32 bits where they fit.
#include "quant/cuda/device_arithmetic.cuh"
#include "quant/cuda/with_device_type.cuh"
#include "quant/hqq/hqq_kernels.h"

namespace qlora::quant::cuda {
namespace {

constexpr int kThreads = 256;

template <typename Index, typename Scale, typename T>
__global__ void decode(HqqDequantizeArguments a, const Scale* scales, const Scale* zeros, T* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= a.end - a.begin) return;
  const auto place = static_cast<Index>(a.begin + i);
  const auto columns = static_cast<Index>(a.columns), height = static_cast<Index>(a.packed_rows);
  const Index row = place / columns, column = place % columns;
  const Index part = row / height;
  const int64_t at = static_cast<int64_t>(row - part * height) * a.columns + column;
  const int shift = a.bits * (hqq_parts(a.bits) - 1 - static_cast<int>(part));
  const int word = a.bits == 3 ? static_cast<const int32_t*>(a.packed)[at]
                               : static_cast<const uint8_t*>(a.packed)[at];
  const auto field = static_cast<float>((word >> shift) & ((1 << a.bits) - 1));
  const Index group = a.groups_are_rows ? row : column;
  const float difference = __fsub_rn(field, to_float(zeros[group]));
  store(__fmul_rn(difference, to_float(scales[group])), out[i]);
}

template <typename Scale, typename T>
void launch(const HqqDequantizeArguments& a, cudaStream_t stream) {
  const auto groups = static_cast<unsigned>((a.end - a.begin + kThreads - 1) / kThreads);
  const auto* scales = static_cast<const Scale*>(a.scales);
  const auto* zeros = static_cast<const Scale*>(a.zeros);
  T* out = static_cast<T*>(a.out);
  if (a.end <= int64_t{0xffffffff})
    decode<uint32_t><<<groups, kThreads, 0, stream>>>(a, scales, zeros, out);
  else
    decode<uint64_t><<<groups, kThreads, 0, stream>>>(a, scales, zeros, out);
}

}  // namespace

void dequantize_hqq(const HqqDequantizeArguments& a, void* stream) {
  if (a.begin == a.end) return;
  with_device_type(a.scale_type, [&](auto scale) {
    with_device_type(a.type, [&](auto element) {
      launch<typename decltype(scale)::Type, typename decltype(element)::Type>(
          a, static_cast<cudaStream_t>(stream));
    });
  });
  check_launch("dequantize_hqq");
}

}  // namespace qlora::quant::cuda
