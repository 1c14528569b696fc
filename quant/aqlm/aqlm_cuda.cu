// AQLM on CUDA: a thread decodes an element. Neighbouring threads share a code and read
// neighbouring numbers of a codebook's entry.
#include "quant/aqlm/aqlm_kernels.h"
#include "quant/cuda/device_arithmetic.cuh"
#include "quant/cuda/with_device_type.cuh"

namespace qlora::quant::cuda {
namespace {

constexpr int kThreads = 256;

__device__ float scale_at(const AqlmDequantizeArguments& a, int64_t i) {
  switch (a.scale_type) {
    case ElementType::kFloat32:
      return static_cast<const float*>(a.scales)[i];
    case ElementType::kBFloat16:
      return to_float(static_cast<const __nv_bfloat16*>(a.scales)[i]);
    default:
      return to_float(static_cast<const __half*>(a.scales)[i]);
  }
}

template <typename Code, typename Entry, typename T>
__global__ void decode(AqlmDequantizeArguments a, const Code* codes, const Entry* codebooks,
                       T* out) {
  const int64_t in = a.column_blocks * a.in_group;
  const uint32_t column = blockIdx.y * kThreads + threadIdx.x;
  if (column >= in) return;
  const auto row = static_cast<uint32_t>(a.begin) + blockIdx.x;
  const auto out_group = static_cast<uint32_t>(a.out_group);
  const auto in_group = static_cast<uint32_t>(a.in_group);
  const int64_t row_block = row / out_group, column_block = column / in_group;
  const Code* of_block = codes + (row_block * a.column_blocks + column_block) * a.num_codebooks;
  const int64_t size = a.out_group * a.in_group;
  const Entry* codebook = codebooks + row % out_group * in_group + column % in_group;
  float sum = 0.0f;
  for (int64_t c = 0; c < a.num_codebooks; ++c, codebook += a.entries * size)
    sum = __fadd_rn(sum, to_float(codebook[(of_block[c] & (a.entries - 1)) * size]));
  store(__fmul_rn(sum, scale_at(a, row_block)), out[blockIdx.x * in + column]);
}

template <typename Code, typename Entry, typename T>
void launch(const AqlmDequantizeArguments& a, cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>(a.end - a.begin),
                    static_cast<unsigned>((a.in() + kThreads - 1) / kThreads));
  decode<<<blocks, kThreads, 0, stream>>>(a, static_cast<const Code*>(a.codes),
                                          static_cast<const Entry*>(a.codebooks),
                                          static_cast<T*>(a.out));
}

}  // namespace

void dequantize_aqlm(const AqlmDequantizeArguments& a, void* stream) {
  if (a.begin == a.end) return;
  const auto s = static_cast<cudaStream_t>(stream);
  with_device_type(a.codebook_type, [&](auto entry) {
    with_device_type(a.type, [&](auto element) {
      using Entry = typename decltype(entry)::Type;
      using T = typename decltype(element)::Type;
      if (a.codes_are_16_bit)
        launch<uint16_t, Entry, T>(a, s);
      else
        launch<uint8_t, Entry, T>(a, s);
    });
  });
  check_launch("dequantize_aqlm");
}

}  // namespace qlora::quant::cuda
