// Thread blocks of 128 threads, each thread for 16 bytes of a token's row.
#include <type_traits>

#include "model/activation_kernels.h"
#include "quant/cuda/device_vectors.cuh"
#include "quant/cuda/with_device_type.cuh"

namespace qlora::model::cuda {
namespace {

using quant::cuda::kPerPiece;
using quant::cuda::load_floats;
using quant::cuda::Share;
using quant::cuda::store_floats;

constexpr int kThreads = 128;

// Where the thread's elements begin in a row, and how many it has.
struct Place {
  int64_t begin;
  Share share;
};

template <typename T>
__device__ Place place_of(int64_t width, bool aligned) {
  const int64_t begin = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kPerPiece<T>;
  return {begin, quant::cuda::share_of<T>(begin, width, aligned)};
}

template <typename T>
__device__ const T* elements(ConstRows rows, Place place) {
  return static_cast<const T*>(rows.data) + blockIdx.x * rows.stride + place.begin;
}
template <typename T>
__device__ T* elements(MutableRows rows, Place place) {
  return static_cast<T*>(rows.data) + blockIdx.x * rows.stride + place.begin;
}

// At a gate that was clamped already: act(x) = x · share, and act'(x) = slope · rest.
struct Point {
  float x, share, slope, rest;
};

__device__ inline Point sigmoid_point(float x, float alpha) {
  const float s = 1.0f / (1.0f + expf(-alpha * x));
  return {x, s, s, 1.0f + alpha * x * (1.0f - s)};
}

template <Activation kKind>
__device__ inline Point point_at(float x, float alpha) {
  if constexpr (kKind == Activation::kSilu) return sigmoid_point(x, 1.0f);
  if constexpr (kKind == Activation::kClampedSilu) return sigmoid_point(x, alpha);
  if constexpr (kKind == Activation::kGelu) {
    const float phi = 0.5f * (1.0f + erff(x * 0.70710678118654752f));
    return {x, phi, phi + x * (0.3989422804014327f * expf(-0.5f * x * x)), 1.0f};
  }
  if constexpr (kKind == Activation::kGeluTanh) {
    const float near = x > 30.0f ? 30.0f : x < -30.0f ? -30.0f : x, scale = 1.5957691216057308f;
    const float s = 1.0f / (1.0f + expf(-scale * (near + 0.044715f * near * near * near)));
    return {x, s, s + near * s * (1.0f - s) * scale * (1.0f + 0.134145f * near * near), 1.0f};
  }
  const float above = x < 0.0f ? 0.0f : x;
  if constexpr (kKind == Activation::kRelu) return {above, 1.0f, x > 0.0f ? 1.0f : 0.0f, 1.0f};
  return {above, above, 2.0f * above, 1.0f};
}

template <Activation kKind>
__device__ inline float value_at(float x, float alpha) {
  if constexpr (kKind == Activation::kSilu) return x / (1.0f + expf(-x));
  const Point at = point_at<kKind>(x, alpha);
  return at.x * at.share;
}

__device__ inline float within(float x, float limit) { return fminf(fmaxf(x, -limit), limit); }

template <Activation kKind>
__device__ inline float output_of(const ActivationKernel& how, float g, float u) {
  if constexpr (kKind == Activation::kClampedSilu) {
    g = g > how.limit ? how.limit : g;
    u = within(u, how.limit) + 1.0f;
  }
  return value_at<kKind>(g, how.alpha) * u;
}

struct Gradients {
  float gate, up;
};

template <Activation kKind>
__device__ inline Gradients gradients_of(const ActivationKernel& how, float g, float u, float dy) {
  float d_of_gate = dy, d_of_up = dy;
  if constexpr (kKind == Activation::kClampedSilu) {
    if (g > how.limit) d_of_gate = 0.0f;
    if (fabsf(u) > how.limit) d_of_up = 0.0f;
    g = g > how.limit ? how.limit : g;
    u = within(u, how.limit) + 1.0f;
  }
  const Point point = point_at<kKind>(g, how.alpha);
  return {d_of_gate * u * point.slope * point.rest, d_of_up * point.x * point.share};
}

// Without a gate, `u` is 1.
template <typename T>
__device__ void load_up(bool gated, ConstRows rows, Place place, float (&u)[kPerPiece<T>]) {
  if (gated) return load_floats(elements<T>(rows, place), place.share, u);
#pragma unroll
  for (int i = 0; i < kPerPiece<T>; ++i) u[i] = 1.0f;
}

template <typename T, Activation kKind>
__global__ void forward(Activate a, bool aligned) {
  constexpr int kEach = kPerPiece<T>;
  const Place place = place_of<T>(a.width, aligned);
  if (place.share.end == 0) return;
  float g[kEach], u[kEach], y[kEach];
  load_floats(elements<T>(a.gate, place), place.share, g);
  load_up<T>(a.how.gated, a.up, place, u);
#pragma unroll
  for (int i = 0; i < kEach; ++i) y[i] = output_of<kKind>(a.how, g[i], u[i]);
  store_floats(y, place.share, elements<T>(a.out, place));
}

template <typename T, Activation kKind>
__global__ void backward(ActivateBackward a, bool aligned) {
  constexpr int kEach = kPerPiece<T>;
  const Place place = place_of<T>(a.width, aligned);
  if (place.share.end == 0) return;
  float g[kEach], u[kEach], dy[kEach], d_gate[kEach], d_up[kEach];
  load_floats(elements<T>(a.gate, place), place.share, g);
  load_floats(elements<T>(a.dy, place), place.share, dy);
  load_up<T>(a.how.gated, a.up, place, u);
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const Gradients d = gradients_of<kKind>(a.how, g[i], u[i], dy[i]);
    d_gate[i] = d.gate;
    d_up[i] = d.up;
  }
  store_floats(d_gate, place.share, elements<T>(a.d_gate, place));
  if (a.how.gated) store_floats(d_up, place.share, elements<T>(a.d_up, place));
}

// Calls f(std::integral_constant<Activation, kind>()).
template <typename F>
void with_kind(Activation kind, const F& f) {
  switch (kind) {
    case Activation::kSilu:
      return f(std::integral_constant<Activation, Activation::kSilu>());
    case Activation::kGelu:
      return f(std::integral_constant<Activation, Activation::kGelu>());
    case Activation::kGeluTanh:
      return f(std::integral_constant<Activation, Activation::kGeluTanh>());
    case Activation::kRelu:
      return f(std::integral_constant<Activation, Activation::kRelu>());
    case Activation::kRelu2:
      return f(std::integral_constant<Activation, Activation::kRelu2>());
    case Activation::kClampedSilu:
      return f(std::integral_constant<Activation, Activation::kClampedSilu>());
  }
}

template <typename T>
dim3 grid_of(int64_t tokens, int64_t width) {
  constexpr int64_t kElements = int64_t{kThreads} * kPerPiece<T>;
  return {static_cast<unsigned>(tokens), static_cast<unsigned>((width + kElements - 1) / kElements),
          1};
}

// Whether every row begins at a multiple of 16 bytes.
template <typename T, typename... Rows>
bool are_aligned(const Rows&... rows) {
  return ((quant::cuda::aligned_to(rows.data, 16) && rows.stride % kPerPiece<T> == 0) && ...);
}

}  // namespace

void activate(const Activate& a, void* stream) {
  if (a.tokens == 0) return;
  quant::cuda::with_device_type(a.type, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    with_kind(a.how.kind, [&](auto kind) {
      forward<T, decltype(kind)::value>
          <<<grid_of<T>(a.tokens, a.width), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
              a, are_aligned<T>(a.gate, a.up, a.out));
    });
  });
  quant::cuda::check_launch("activate");
}

void activate_backward(const ActivateBackward& a, void* stream) {
  if (a.tokens == 0) return;
  quant::cuda::with_device_type(a.type, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    with_kind(a.how.kind, [&](auto kind) {
      backward<T, decltype(kind)::value>
          <<<grid_of<T>(a.tokens, a.width), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
              a, are_aligned<T>(a.gate, a.up, a.dy, a.d_gate, a.d_up));
    });
  });
  quant::cuda::check_launch("activate_backward");
}

}  // namespace qlora::model::cuda
