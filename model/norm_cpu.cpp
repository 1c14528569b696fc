#include "base/element.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "model/norm_kernels.h"
#include "quant/with_element_type.h"

namespace qlora::model::cpu {
namespace {

template <typename T>
[[gnu::always_inline]] inline void forward_row(const float* residual, const T* delta,
                                               const float* weight, float eps, int64_t hidden,
                                               float* out, T* normed, float* rstd) {
  float lanes[kLanes] = {};
  const int64_t whole = hidden / kLanes * kLanes;
  if (out)
    for (int64_t i = 0; i < hidden; ++i)
      out[i] = delta ? residual[i] + load(delta[i]) : residual[i];
  const float* sum = out ? out : residual;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int j = 0; j < kLanes; ++j) lanes[j] += sum[i + j] * sum[i + j];
  for (int64_t i = whole; i < hidden; ++i) lanes[i - whole] += sum[i] * sum[i];
  const float scale = 1.0f / std::sqrt(sum_lanes(lanes) / static_cast<float>(hidden) + eps);
  *rstd = scale;
  for (int64_t i = 0; i < hidden; ++i) store(sum[i] * scale * weight[i], normed[i]);
}

template <typename T>
[[gnu::always_inline]] inline void backward_row(const float* x, float rstd, const float* weight,
                                                const T* dy, const float* d_out, int64_t hidden,
                                                float* dx, T* d_delta) {
  float lanes[kLanes] = {};
  const int64_t whole = hidden / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int j = 0; j < kLanes; ++j) lanes[j] += load(dy[i + j]) * weight[i + j] * x[i + j];
  for (int64_t i = whole; i < hidden; ++i) lanes[i - whole] += load(dy[i]) * weight[i] * x[i];
  const float dot = sum_lanes(lanes) * rstd * rstd * rstd / static_cast<float>(hidden);
  for (int64_t i = 0; i < hidden; ++i) {
    const float through_norm = rstd * weight[i] * load(dy[i]) - x[i] * dot;
    dx[i] = d_out ? d_out[i] + through_norm : through_norm;
  }
  if (d_delta)
    for (int64_t i = 0; i < hidden; ++i) store(dx[i], d_delta[i]);
}

// Columns [begin, end), kLanes at a time.
template <typename T>
[[gnu::always_inline]] inline void weight_columns(const float* x, const float* rstd, const T* dy,
                                                  int64_t begin, int64_t end, int64_t tokens,
                                                  int64_t hidden, float* d_weight) {
  for (int64_t first = begin; first < end; first += kLanes) {
    double lanes[kLanes] = {};
    const int64_t count = end - first < kLanes ? end - first : kLanes;
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t j = 0; j < count; ++j) {
        const int64_t i = t * hidden + first + j;
        lanes[j] += static_cast<double>(load(dy[i]) * (x[i] * rstd[t]));
      }
    for (int64_t j = 0; j < count; ++j) d_weight[first + j] += static_cast<float>(lanes[j]);
  }
}

// The loops for each type of element, compiled for several instruction sets.
#define QLORA_NORM_ROWS(T)                                                                         \
  QLORA_VECTORIZED void forward_rows(const float* r, const T* d, const float* w, float eps,        \
                                     int64_t begin, int64_t end, int64_t h, float* out, T* n,      \
                                     float* s) {                                                   \
    for (int64_t t = begin; t < end; ++t)                                                          \
      forward_row(r + t * h, d ? d + t * h : d, w, eps, h, out ? out + t * h : out, n + t * h,     \
                  s + t);                                                                          \
  }                                                                                                \
  QLORA_VECTORIZED void backward_rows(const float* x, const float* s, const float* w, const T* dy, \
                                      const float* d_out, int64_t begin, int64_t end, int64_t h,   \
                                      float* dx, T* dd) {                                          \
    for (int64_t t = begin; t < end; ++t)                                                          \
      backward_row(x + t * h, s[t], w, dy + t * h, d_out ? d_out + t * h : d_out, h, dx + t * h,   \
                   dd ? dd + t * h : dd);                                                          \
  }                                                                                                \
  QLORA_VECTORIZED void weight_range(const float* x, const float* s, const T* dy, int64_t begin,   \
                                     int64_t end, int64_t tokens, int64_t h, float* dw) {          \
    weight_columns(x, s, dy, begin, end, tokens, h, dw);                                           \
  }

QLORA_NORM_ROWS(float)
QLORA_NORM_ROWS(uint16_t)
QLORA_NORM_ROWS(Float16)
#undef QLORA_NORM_ROWS

}  // namespace

void add_rms_norm(const AddRmsNorm& a) {
  quant::with_element_type(a.type, [&]<typename T>(std::type_identity<T>) {
    parallel_for(a.tokens, 16, [&](int64_t begin, int64_t end) {
      forward_rows(a.residual, static_cast<const T*>(a.delta), a.weight, a.eps, begin, end,
                   a.hidden, a.residual_out, static_cast<T*>(a.normed), a.rstd);
    });
  });
}

void add_rms_norm_backward(const AddRmsNormBackward& a) {
  quant::with_element_type(a.type, [&]<typename T>(std::type_identity<T>) {
    parallel_for(a.tokens, 16, [&](int64_t begin, int64_t end) {
      backward_rows(a.residual, a.rstd, a.weight, static_cast<const T*>(a.d_normed),
                    a.d_residual_out, begin, end, a.hidden, a.d_residual,
                    static_cast<T*>(a.d_delta));
    });
  });
}

void rms_norm_weight_gradient(const RmsNormWeightGradient& a) {
  quant::with_element_type(a.type, [&]<typename T>(std::type_identity<T>) {
    parallel_for(a.hidden, 4 * kLanes, [&](int64_t begin, int64_t end) {
      weight_range(a.residual, a.rstd, static_cast<const T*>(a.d_normed), begin, end, a.tokens,
                   a.hidden, a.d_weight);
    });
  });
}

}  // namespace qlora::model::cpu
