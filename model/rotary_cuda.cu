// A thread block for each token, which turns the first matrix's heads and then the second's. A
// thread takes four neighbours of each half of a head at a time, or one where rows do not allow it.
#include <algorithm>

#include "model/rotary_kernels.h"
#include "quant/cuda/device_vectors.cuh"
#include "quant/cuda/with_device_type.cuh"

namespace qlora::model::cuda {
namespace {

using quant::cuda::load_neighbours;
using quant::cuda::store_neighbours;

constexpr int kMostThreads = 128;

// With kEach neighbours, elements i and i + half turn together.
template <typename T, int kEach>
__global__ void rotate_kernel(Rotate a) {
  const int64_t token = blockIdx.x;
  const int half = static_cast<int>(a.half), of_first = static_cast<int>(a.first.heads) * half;
  const int pairs = of_first + static_cast<int>(a.second.heads) * half;
  T* in_first = static_cast<T*>(a.first.x) + token * a.first.stride;
  T* in_second = static_cast<T*>(a.second.x) + token * a.second.stride;
  const float *cos = a.cos + token * a.half, *sin = a.sin + token * a.half;
  const bool neighbours = kEach == 1 && a.pairs;
  for (int pair = threadIdx.x * kEach; pair < pairs; pair += blockDim.x * kEach) {
    const bool is_first = pair < of_first;
    const int place = is_first ? pair : pair - of_first, i = place % half;
    T* head = (is_first ? in_first : in_second) + place / half * a.head_dim;
    T *x = head + (neighbours ? 2 * i : i), *y = x + (neighbours ? 1 : half);
    float c[kEach], s[kEach], u[kEach], v[kEach], turned[kEach];
    load_neighbours(cos + i, c);
    load_neighbours(sin + i, s);
    load_neighbours(x, u);
    load_neighbours(y, v);
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      s[j] *= a.sign;
      turned[j] = u[j] * c[j] - v[j] * s[j];
    }
    store_neighbours(turned, x);
#pragma unroll
    for (int j = 0; j < kEach; ++j) turned[j] = v[j] * c[j] + u[j] * s[j];
    store_neighbours(turned, y);
  }
}

template <typename T>
bool by_four(const RotatedHeads& in) {
  return quant::cuda::aligned_to(in.x, 4 * sizeof(T)) && in.stride % 4 == 0;
}

template <typename T, int kEach>
void launch(const Rotate& a, cudaStream_t stream) {
  const int64_t pieces = (a.first.heads + a.second.heads) * a.half / kEach;
  const int64_t threads = std::clamp<int64_t>((pieces + 31) / 32 * 32, 32, kMostThreads);
  rotate_kernel<T, kEach>
      <<<static_cast<unsigned>(a.tokens), static_cast<unsigned>(threads), 0, stream>>>(a);
}

}  // namespace

void rotate(const Rotate& a, void* stream) {
  if (a.tokens == 0) return;
  const bool tables_by_four =
      a.half % 4 == 0 && quant::cuda::aligned_to(a.cos, 16) && quant::cuda::aligned_to(a.sin, 16);
  quant::cuda::with_device_type(a.type, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    const auto s = static_cast<cudaStream_t>(stream);
    if (!a.pairs && tables_by_four && a.head_dim % 4 == 0 && by_four<T>(a.first) &&
        by_four<T>(a.second))
      launch<T, 4>(a, s);
    else
      launch<T, 1>(a, s);
  });
  quant::cuda::check_launch("rotate");
}

}  // namespace qlora::model::cuda
