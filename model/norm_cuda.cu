// A team of threads for each group of a token: a warp where groups are short (norms of heads), else
// a thread block. A thread takes four neighbours at a time where all rows allow it.
#include <algorithm>
#include <type_traits>

#include "model/norm_kernels.h"
#include "quant/cuda/device_sums.cuh"
#include "quant/cuda/device_vectors.cuh"
#include "quant/cuda/with_device_type.cuh"

namespace qlora::model::cuda {
namespace {

using quant::cuda::check_launch;
using quant::cuda::load_neighbours;
using quant::cuda::reduce_block;
using quant::cuda::reduce_warp;
using quant::cuda::store_neighbours;
using quant::cuda::Sum;
using quant::cuda::to_float;
using quant::cuda::with_device_type;

constexpr int kMostThreads = 256, kWarp = 32;
constexpr int64_t kLongestOfWarp = 512;

template <bool kIsWarp, int kNeighbours>
struct TeamOf {
  static constexpr int kEach = kNeighbours;

  // Which of the groups of all tokens; a warp may be behind the last.
  __device__ static unsigned row() {
    return kIsWarp ? blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp : blockIdx.x;
  }
  __device__ static int64_t first() {
    return kEach * (kIsWarp ? threadIdx.x % kWarp : threadIdx.x);
  }
  __device__ static int64_t step() { return kEach * (kIsWarp ? kWarp : blockDim.x); }
  __device__ static float sum(float value, float* shared) {
    return kIsWarp ? reduce_warp<Sum>(value) : reduce_block<Sum>(value, shared);
  }
};

// Where a team's group lies.
struct Place {
  int64_t in_x, in_rows, in_weight;
};

__device__ inline Place place_of(const NormShape& s, int64_t stride, unsigned row) {
  const auto groups = static_cast<unsigned>(s.groups);
  const int64_t token = row / groups, column = row % groups * s.size;
  return {token * stride + column, row * s.size, s.weight_for_each_group ? column : 0};
}

template <typename X, typename T, typename Team>
__global__ void forward(Norm a) {
  constexpr int kEach = Team::kEach;
  __shared__ float shared[32];
  const unsigned row = Team::row();
  if (row >= a.shape.tokens * a.shape.groups) return;
  const int64_t size = a.shape.size, first = Team::first(), step = Team::step();
  const Place at = place_of(a.shape, a.in.stride, row);
  const X* x = static_cast<const X*>(a.in.x) + at.in_x;
  float u[kEach], moment = 0.0f;  // first a LayerNorm's mean, or else the squares
  for (int64_t i = first; i < size; i += step) {
    load_neighbours(x + i, u);
    if constexpr (std::is_same_v<X, float>)
      if (a.delta) {
        float delta[kEach];
        load_neighbours(static_cast<const T*>(a.delta) + at.in_rows + i, delta);
        for (int j = 0; j < kEach; ++j) u[j] += delta[j];
        store_neighbours(u, a.sum + at.in_rows + i);  // read again by the same thread
      }
    for (int j = 0; j < kEach; ++j) moment += a.shape.layer ? u[j] : u[j] * u[j];
  }
  if constexpr (std::is_same_v<X, float>)
    if (a.delta) x = a.sum + at.in_rows;
  moment = Team::sum(moment, shared) / static_cast<float>(size);
  const float mean = a.shape.layer ? moment : 0.0f;
  if (a.shape.layer) {
    moment = 0.0f;
    for (int64_t i = first; i < size; i += step) {
      load_neighbours(x + i, u);
      for (int j = 0; j < kEach; ++j) moment += (u[j] - mean) * (u[j] - mean);
    }
    moment = Team::sum(moment, shared) / static_cast<float>(size);
  }
  const float scale = 1.0f / sqrtf(moment + a.eps);
  if (first == 0) {
    if (a.shape.layer) a.mean[row] = mean;
    a.rstd[row] = scale;
  }
  const float *weight = a.weight + at.in_weight, *bias = a.bias ? a.bias + at.in_weight : nullptr;
  for (int64_t i = first; i < size; i += step) {
    float w[kEach], b[kEach] = {};
    load_neighbours(x + i, u);
    load_neighbours(weight + i, w);
    if (bias) load_neighbours(bias + i, b);
    for (int j = 0; j < kEach; ++j) {
      u[j] = (u[j] - mean) * scale * w[j];
      if (bias) u[j] += b[j];
    }
    store_neighbours(u, static_cast<T*>(a.normed) + at.in_rows + i);
  }
}

template <typename X, typename T, typename Team>
__global__ void backward(NormBackward a) {
  constexpr int kEach = Team::kEach;
  __shared__ float shared[32];
  const unsigned row = Team::row();
  if (row >= a.shape.tokens * a.shape.groups) return;
  const int64_t size = a.shape.size, first = Team::first(), step = Team::step();
  const Place at = place_of(a.shape, a.in.stride, row);
  const X* x = static_cast<const X*>(a.in.x) + at.in_x;
  const float* weight = a.weight + at.in_weight;
  const T* d_normed = static_cast<const T*>(a.d_normed) + at.in_rows;
  const float mean = a.shape.layer ? a.mean[row] : 0.0f, rstd = a.rstd[row];
  float u[kEach], w[kEach], dy[kEach], dot = 0.0f, shift = 0.0f;
  for (int64_t i = first; i < size; i += step) {
    load_neighbours(x + i, u);
    load_neighbours(weight + i, w);
    load_neighbours(d_normed + i, dy);
    for (int j = 0; j < kEach; ++j) {
      const float through_weight = dy[j] * w[j];
      dot += through_weight * (u[j] - mean);
      shift += through_weight;
    }
  }
  dot = Team::sum(dot, shared) * rstd * rstd * rstd / static_cast<float>(size);
  shift = a.shape.layer ? Team::sum(shift, shared) * rstd / static_cast<float>(size) : 0.0f;
  for (int64_t i = first; i < size; i += step) {
    float d[kEach] = {};
    load_neighbours(x + i, u);
    load_neighbours(weight + i, w);
    load_neighbours(d_normed + i, dy);
    if (a.d_sum) load_neighbours(a.d_sum + at.in_rows + i, d);
    for (int j = 0; j < kEach; ++j) d[j] = d[j] + rstd * w[j] * dy[j] - (u[j] - mean) * dot - shift;
    store_neighbours(d, static_cast<X*>(a.d_x) + at.in_rows + i);
    if (a.d_delta) store_neighbours(d, static_cast<T*>(a.d_delta) + at.in_rows + i);
  }
}

// A thread block for 32 columns of the weight. Each of its 32 rows of threads takes every 32nd
// token, and their sums are added in a fixed order.
template <typename X, typename T>
__global__ void __launch_bounds__(kWarp* kWarp) weight_gradient(NormWeightGradient a) {
  __shared__ double weights[kWarp][kWarp], biases[kWarp][kWarp];
  const NormShape& s = a.shape;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  const int64_t weight_groups = s.weight_for_each_group ? s.groups : 1;
  const int64_t each = s.groups / weight_groups, width = s.groups * s.size;
  const bool inside = i < weight_groups * s.size;
  double weight = 0.0, bias = 0.0;
  for (int64_t t = threadIdx.y; inside && t < s.tokens; t += kWarp)
    for (int64_t g = 0; g < each; ++g) {
      const int64_t column = i + g * s.size;
      const int64_t row = t * s.groups + (s.weight_for_each_group ? i / s.size : g);
      const float x = to_float(static_cast<const X*>(a.in.x)[t * a.in.stride + column]);
      const float dy = to_float(static_cast<const T*>(a.d_normed)[t * width + column]);
      const float mean = s.layer ? a.mean[row] : 0.0f;
      weight += static_cast<double>(dy * ((x - mean) * a.rstd[row]));
      bias += static_cast<double>(dy);
    }
  weights[threadIdx.y][threadIdx.x] = weight;
  biases[threadIdx.y][threadIdx.x] = bias;
  for (int rows = kWarp / 2; rows > 0; rows /= 2) {
    __syncthreads();
    if (threadIdx.y >= rows) continue;
    weights[threadIdx.y][threadIdx.x] += weights[threadIdx.y + rows][threadIdx.x];
    biases[threadIdx.y][threadIdx.x] += biases[threadIdx.y + rows][threadIdx.x];
  }
  if (threadIdx.y > 0 || !inside) return;
  if (a.d_weight) a.d_weight[i] += static_cast<float>(weights[0][threadIdx.x]);
  if (a.d_bias) a.d_bias[i] += static_cast<float>(biases[0][threadIdx.x]);
}

// Calls body(tag of x, tag of the other matrices).
template <typename Body>
void with_types(const NormShape& shape, const NormInput& in, const Body& body) {
  with_device_type(shape.type, [&](auto tag) {
    if (in.is_stream)
      body(quant::cuda::TypeTag<float>(), tag);
    else
      body(tag, tag);
  });
}

// Whether four neighbours can be moved at once in all rows that begin `stride` elements apart.
template <typename T>
bool by_four(const T* rows, int64_t stride) {
  return quant::cuda::aligned_to(rows, 4 * sizeof(T)) && stride % 4 == 0;
}

// Calls body(TeamOf, number of thread blocks, their threads).
template <typename Body>
void with_team(const NormShape& s, bool four, const Body& body) {
  const int64_t groups = s.tokens * s.groups;
  if (four && s.size <= kLongestOfWarp) {
    constexpr int kWarps = kMostThreads / kWarp;
    return body(TeamOf<true, 4>(), static_cast<unsigned>((groups + kWarps - 1) / kWarps),
                kMostThreads);
  }
  const int64_t each = four ? 4 : 1, warps = (s.size / each + kWarp - 1) / kWarp;
  const int threads = static_cast<int>(std::clamp<int64_t>(warps * kWarp, kWarp, kMostThreads));
  if (four)
    body(TeamOf<false, 4>(), static_cast<unsigned>(groups), threads);
  else
    body(TeamOf<false, 1>(), static_cast<unsigned>(groups), threads);
}

}  // namespace

void norm(const Norm& a, void* stream) {
  if (a.shape.tokens == 0) return;
  with_types(a.shape, a.in, [&](auto x_tag, auto tag) {
    using X = typename decltype(x_tag)::Type;
    using T = typename decltype(tag)::Type;
    const int64_t size = a.shape.size;
    const bool four = by_four(static_cast<const X*>(a.in.x), a.in.stride) &&
                      by_four(static_cast<const T*>(a.delta), size) && by_four(a.sum, size) &&
                      by_four(a.weight, size) && by_four(a.bias, size) &&
                      by_four(static_cast<const T*>(a.normed), size);
    with_team(a.shape, four, [&](auto team, unsigned blocks, int threads) {
      forward<X, T, decltype(team)><<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(a);
    });
  });
  check_launch("norm");
}

void norm_backward(const NormBackward& a, void* stream) {
  if (a.shape.tokens == 0) return;
  with_types(a.shape, a.in, [&](auto x_tag, auto tag) {
    using X = typename decltype(x_tag)::Type;
    using T = typename decltype(tag)::Type;
    const int64_t size = a.shape.size;
    const bool four = by_four(static_cast<const X*>(a.in.x), a.in.stride) &&
                      by_four(static_cast<const T*>(a.d_normed), size) && by_four(a.d_sum, size) &&
                      by_four(a.weight, size) && by_four(static_cast<const X*>(a.d_x), size) &&
                      by_four(static_cast<const T*>(a.d_delta), size);
    with_team(a.shape, four, [&](auto team, unsigned blocks, int threads) {
      backward<X, T, decltype(team)><<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(a);
    });
  });
  check_launch("norm_backward");
}

void norm_weight_gradient(const NormWeightGradient& a, void* stream) {
  const int64_t columns = a.shape.weight_groups() * a.shape.size;
  const auto blocks = static_cast<unsigned>((columns + kWarp - 1) / kWarp);
  with_types(a.shape, a.in, [&](auto x, auto tag) {
    weight_gradient<typename decltype(x)::Type, typename decltype(tag)::Type>
        <<<blocks, dim3(kWarp, kWarp), 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  check_launch("norm_weight_gradient");
}

}  // namespace qlora::model::cuda
