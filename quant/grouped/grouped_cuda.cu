// Grouped weights on CUDA: a thread decodes eight columns of a row, whose codes lie in one or two
// words of 4 bytes, and stores them in 16-byte pieces. Differences and products are rounded on
// their own, as on the CPU.
#include "quant/cuda/device_arithmetic.cuh"
#include "quant/grouped/grouped_kernels.h"

namespace qlora::quant::cuda {
namespace {

constexpr int kMostThreads = 256;
constexpr int kPerThread = 8;

// Codes 8 * piece and on of a row of `words` words, in the lowest bits.
template <int kBits>
__device__ uint64_t eight_codes(const uint32_t* row, int64_t words, int64_t piece) {
  const int64_t bit = piece * (kPerThread * kBits), word = bit / 32;
  uint64_t codes = __ldg(row + word);
  constexpr bool kOverTheBorder = kBits == 3 || kBits == 8;
  if (kOverTheBorder && word + 1 < words)
    codes |= static_cast<uint64_t>(__ldg(row + word + 1)) << 32;
  return codes >> (bit % 32);
}

__device__ float number_at(const void* numbers, ElementType type, int64_t index) {
  switch (type) {
    case ElementType::kBFloat16:
      return to_float(static_cast<const __nv_bfloat16*>(numbers)[index]);
    case ElementType::kFloat16:
      return to_float(static_cast<const __half*>(numbers)[index]);
    default:
      return static_cast<const float*>(numbers)[index];
  }
}

__device__ float zero_at(const GroupedRows& w, int64_t index) {
  if (w.byte_zeros != nullptr) return static_cast<float>(w.byte_zeros[index]);
  return w.float_zeros != nullptr ? number_at(w.float_zeros, w.zero_type, index) : w.zero;
}

__device__ int64_t group_at(const GroupedRows& w, int64_t column) {
  if (w.group_of != nullptr) return w.group_of[column];
  return static_cast<uint32_t>(column) / static_cast<uint32_t>(w.group_size);
}

// Blocks [rows, pieces of a row].
template <int kBits, typename T>
__global__ void __launch_bounds__(kMostThreads)
    decode(GroupedRows w, int64_t begin, bool aligned, T* out) {
  const int64_t piece = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  const int64_t column = piece * kPerThread, row = begin + blockIdx.x;
  if (column >= w.in) return;
  const uint64_t codes = eight_codes<kBits>(
      reinterpret_cast<const uint32_t*>(w.codes + row * w.row_bytes), w.row_bytes / 4, piece);
  const int count = w.in - column < kPerThread ? static_cast<int>(w.in - column) : kPerThread;
  int64_t end = column;  // of the columns that share scale and zero
  float scale = 0.0f, zero = 0.0f;
  Vector<T, kPerThread> result;
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    if (j >= count) break;
    if (column + j == end) {
      const int64_t group = group_at(w, end), index = row * w.groups + group;
      end = w.group_of != nullptr ? end + 1 : (group + 1) * w.group_size;
      scale = number_at(w.scales, w.scale_type, index);
      zero = zero_at(w, index);
    }
    const uint32_t code = static_cast<uint32_t>(codes >> (j * kBits)) & ((1u << kBits) - 1u);
    store(__fmul_rn(__fsub_rn(static_cast<float>(code), zero), scale), result.element[j]);
  }
  T* to = out + static_cast<int64_t>(blockIdx.x) * w.in + column;
  if (aligned) {
    copy_vector<T, kPerThread>(&result, to);
  } else {
    for (int j = 0; j < count; ++j) to[j] = result.element[j];
  }
}

template <int kBits, typename T>
void launch_as(const GroupedDequantizeArguments& a, cudaStream_t stream) {
  const int64_t pieces = (a.weight.in + kPerThread - 1) / kPerThread;
  const int64_t threads = pieces < kMostThreads ? (pieces + 31) / 32 * 32 : kMostThreads;
  const dim3 blocks(static_cast<unsigned>(a.end - a.begin),
                    static_cast<unsigned>((pieces + threads - 1) / threads));
  const bool aligned = a.weight.in % kPerThread == 0 && aligned_to(a.out, 16);
  decode<kBits><<<blocks, static_cast<unsigned>(threads), 0, stream>>>(a.weight, a.begin, aligned,
                                                                       static_cast<T*>(a.out));
  check_launch("dequantize_grouped");
}

template <typename T>
void launch(const GroupedDequantizeArguments& a, cudaStream_t stream) {
  switch (a.weight.bits) {
    case 1:
      return launch_as<1, T>(a, stream);
    case 2:
      return launch_as<2, T>(a, stream);
    case 3:
      return launch_as<3, T>(a, stream);
    case 4:
      return launch_as<4, T>(a, stream);
    default:
      return launch_as<8, T>(a, stream);
  }
}

}  // namespace

void dequantize_grouped(const GroupedDequantizeArguments& a, void* stream) {
  if (a.begin == a.end) return;
  check(aligned_to(a.weight.codes, 4), "dequantize_grouped: codes must begin at a word of 4 bytes");
  const auto s = static_cast<cudaStream_t>(stream);
  switch (a.type) {
    case ElementType::kFloat32:
      return launch<float>(a, s);
    case ElementType::kBFloat16:
      return launch<__nv_bfloat16>(a, s);
    case ElementType::kFloat16:
      return launch<__half>(a, s);
  }
}

}  // namespace qlora::quant::cuda
