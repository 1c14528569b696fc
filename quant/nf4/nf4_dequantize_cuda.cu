// 4-bit dequantization on CUDA, double-quantized scales decoded on the way: one launch, bound by
// memory. A chunk is 8 codes, a 4-byte load and one or two 16-byte stores; neighbouring threads
// take neighbouring chunks, so that every warp reads 128 and writes 512 bytes in a row. The 16
// table entries lie in 16 different banks of shared memory, where any mix of codes is free of
// conflicts.
#include "quant/cuda/device_arithmetic.cuh"
#include "quant/nf4/nf4_kernels.h"

namespace qlora::quant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerChunk = 8;
// Above this, a thread decodes four chunks; below, more threads hide more of the wait for memory.
constexpr int64_t kChunksOfSmall = int64_t{1} << 20;

struct Table {
  float value[kNumFourBitCodes];
};

Table table_of(FourBitCode code) {
  Table table;
  for (int i = 0; i < kNumFourBitCodes; ++i)
    table.value[i] = code == FourBitCode::kNf4 ? kNf4Table[i] : kFp4Table[i];
  if (code == FourBitCode::kFp4)
    table.value[8] = -0.0f;  // sign and magnitude, as bitsandbytes' CUDA path decodes it
  return table;
}

template <int kCount>
__device__ void scales_of(const FourBitScales& scales, const int64_t (&block)[kCount],
                          float (&scale)[kCount]) {
  if (scales.absmax != nullptr) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) scale[k] = __ldg(scales.absmax + block[k]);
    return;
  }
  uint8_t code[kCount];
  float nested[kCount];
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    code[k] = __ldg(scales.codes + block[k]);
    nested[k] = __ldg(scales.nested_absmax + (block[k] >> scales.nested_shift));
  }
  const float offset = __ldg(scales.offset);
#pragma unroll
  for (int k = 0; k < kCount; ++k)
    scale[k] = __fadd_rn(multiply_flushed(__ldg(scales.map + code[k]), nested[k]), offset);
}

// Whole chunks [0, chunks) of 8 elements from `begin`, a multiple of 8: a chunk lies within one
// block. All that a thread loads is asked for before anything waits for it; behind the last chunk
// it is the last one's again.
template <int kChunks, typename T>
__global__ void dequantize_chunks(const uint32_t* words, FourBitScales scales, int64_t begin,
                                  int64_t chunks, int block_shift, Table table, T* out) {
  __shared__ float values[kNumFourBitCodes];
  if (threadIdx.x < kNumFourBitCodes) values[threadIdx.x] = table.value[threadIdx.x];
  __syncthreads();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads * kChunks + threadIdx.x;
  uint32_t word[kChunks];
  int64_t block[kChunks];
  float scale[kChunks];
#pragma unroll
  for (int k = 0; k < kChunks; ++k) {
    const int64_t chunk = min(first + k * kThreads, chunks - 1);
    word[k] = __ldg(words + chunk);
    block[k] = (begin + chunk * kPerChunk) >> block_shift;
  }
  scales_of(scales, block, scale);
#pragma unroll
  for (int k = 0; k < kChunks; ++k) {
    const int64_t chunk = first + k * kThreads;
    if (chunk >= chunks) return;
    Vector<T, kPerChunk> result;
#pragma unroll
    for (int i = 0; i < kPerChunk; ++i) {
      const uint32_t code = (word[k] >> (8 * (i / 2) + (i % 2 == 0 ? 4 : 0))) & 15u;
      store(multiply_flushed(values[code], scale[k]), result.element[i]);
    }
    copy_vector<T, kPerChunk>(&result, out + chunk * kPerChunk);
  }
}

// Any range, an element a thread: ends of a range, and rows that begin within a chunk.
template <typename T>
__global__ void dequantize_elements(const uint8_t* packed, FourBitScales scales, int64_t begin,
                                    int64_t count, int block_shift, Table table, T* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t element = begin + i;
  const uint8_t byte = __ldg(packed + element / 2);
  const int code = element % 2 == 0 ? byte >> 4 : byte & 15;
  const int64_t block[] = {element >> block_shift};
  float scale[1];
  scales_of(scales, block, scale);
  store(multiply_flushed(table.value[code], scale[0]), out[i]);
}

template <int kChunks, typename T>
void launch_chunks(const FourBitDequantizeArguments& a, int64_t chunks, int block_shift,
                   const Table& table, cudaStream_t stream) {
  constexpr int64_t kPerGroup = int64_t{kThreads} * kChunks;
  dequantize_chunks<kChunks>
      <<<static_cast<unsigned>((chunks + kPerGroup - 1) / kPerGroup), kThreads, 0, stream>>>(
          reinterpret_cast<const uint32_t*>(a.packed + a.begin / 2), a.scales, a.begin, chunks,
          block_shift, table, static_cast<T*>(a.out));
}

template <typename T>
void launch(const FourBitDequantizeArguments& a, cudaStream_t stream) {
  int block_shift = 0;
  while ((int64_t{1} << block_shift) < a.block_size) ++block_shift;
  const Table table = table_of(a.code);
  T* out = static_cast<T*>(a.out);
  const uint8_t* first_byte = a.packed + a.begin / 2;
  int64_t done = 0;
  if (a.begin % kPerChunk == 0 && aligned_to(first_byte, 4) && aligned_to(out, 16)) {
    const int64_t chunks = (a.end - a.begin) / kPerChunk;
    if (chunks > kChunksOfSmall)
      launch_chunks<4, T>(a, chunks, block_shift, table, stream);
    else if (chunks > 0)
      launch_chunks<1, T>(a, chunks, block_shift, table, stream);
    done = chunks * kPerChunk;
  }
  const int64_t rest = a.end - a.begin - done;
  if (rest > 0)
    dequantize_elements<<<static_cast<unsigned>((rest + kThreads - 1) / kThreads), kThreads, 0,
                          stream>>>(a.packed, a.scales, a.begin + done, rest, block_shift, table,
                                    out + done);
  check_launch("dequantize_four_bit");
}

}  // namespace

void dequantize_four_bit(const FourBitDequantizeArguments& a, void* stream) {
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
