// Thread blocks of 256 threads, each for 1024 neighbouring elements of a token.
#include <type_traits>

#include "model/activation_kernels.h"
#include "quant/cuda/device_arithmetic.cuh"
#include "quant/cuda/with_device_type.cuh"

namespace qlora::model::cuda {
namespace {

using quant::cuda::store;
using quant::cuda::to_float;

constexpr int kThreads = 256, kElements = 1024;

template <typename T>
__device__ const T* row(ConstRows rows) {
  return static_cast<const T*>(rows.data) + blockIdx.x * rows.stride;
}
template <typename T>
__device__ T* row(MutableRows rows) {
  return static_cast<T*>(rows.data) + blockIdx.x * rows.stride;
}

// Calls body(i) for the thread's share of a row.
template <typename Body>
__device__ void for_each_element(int64_t width, const Body& body) {
  const int64_t begin = static_cast<int64_t>(blockIdx.y) * kElements + threadIdx.x;
#pragma unroll
  for (int64_t i = begin; i < begin + kElements; i += kThreads)
    if (i < width) body(i);
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

template <typename T, Activation kKind>
__global__ void forward(Activate a) {
  const T *gate = row<T>(a.gate), *up = a.how.gated ? row<T>(a.up) : nullptr;
  T* out = row<T>(a.out);
  for_each_element(a.width, [&](int64_t i) {
    float g = to_float(gate[i]), u = up ? to_float(up[i]) : 1.0f;
    if constexpr (kKind == Activation::kClampedSilu) {
      g = g > a.how.limit ? a.how.limit : g;
      u = within(u, a.how.limit) + 1.0f;
    }
    store(value_at<kKind>(g, a.how.alpha) * u, out[i]);
  });
}

template <typename T, Activation kKind>
__global__ void backward(ActivateBackward a) {
  const T *gate = row<T>(a.gate), *up = a.how.gated ? row<T>(a.up) : nullptr, *dy = row<T>(a.dy);
  T *d_gate = row<T>(a.d_gate), *d_up = up ? row<T>(a.d_up) : nullptr;
  for_each_element(a.width, [&](int64_t i) {
    float g = to_float(gate[i]), u = up ? to_float(up[i]) : 1.0f;
    float d_of_gate = to_float(dy[i]), d_of_up = d_of_gate;
    if constexpr (kKind == Activation::kClampedSilu) {
      if (g > a.how.limit) d_of_gate = 0.0f;
      if (fabsf(u) > a.how.limit) d_of_up = 0.0f;
      g = g > a.how.limit ? a.how.limit : g;
      u = within(u, a.how.limit) + 1.0f;
    }
    const Point at = point_at<kKind>(g, a.how.alpha);
    store(d_of_gate * u * at.slope * at.rest, d_gate[i]);
    if (d_up) store(d_of_up * at.x * at.share, d_up[i]);
  });
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

dim3 grid_of(int64_t tokens, int64_t width) {
  return {static_cast<unsigned>(tokens), static_cast<unsigned>((width + kElements - 1) / kElements),
          1};
}

}  // namespace

void activate(const Activate& a, void* stream) {
  if (a.tokens == 0) return;
  quant::cuda::with_device_type(a.type, [&](auto tag) {
    with_kind(a.how.kind, [&](auto kind) {
      forward<typename decltype(tag)::Type, decltype(kind)::value>
          <<<grid_of(a.tokens, a.width), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
    });
  });
  quant::cuda::check_launch("activate");
}

void activate_backward(const ActivateBackward& a, void* stream) {
  if (a.tokens == 0) return;
  quant::cuda::with_device_type(a.type, [&](auto tag) {
    with_kind(a.how.kind, [&](auto kind) {
      backward<typename decltype(tag)::Type, decltype(kind)::value>
          <<<grid_of(a.tokens, a.width), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
    });
  });
  quant::cuda::check_launch("activate_backward");
}

}  // namespace qlora::model::cuda
