#include <algorithm>
#include <type_traits>

#include "base/element.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "model/norm_kernels.h"
#include "quant/elements/with_element_type.h"

namespace qlora::model::cpu {
namespace {

// Σ of term(i) over [0, size).
template <typename Term>
[[gnu::always_inline]] inline float sum_of(int64_t size, const Term& term) {
  float lanes[kLanes] = {};
  const int64_t whole = size / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int j = 0; j < kLanes; ++j) lanes[j] += term(i + j);
  for (int64_t i = whole; i < size; ++i) lanes[i - whole] += term(i);
  return sum_lanes(lanes);
}

template <bool kLayer, bool kBias, typename X, typename T>
[[gnu::always_inline]] inline void forward_row(const X* x, const float* weight, const float* bias,
                                               float eps, int64_t size, T* normed, float* mean,
                                               float* rstd) {
  float middle = 0.0f;
  if constexpr (kLayer) {
    middle = sum_of(size, [&](int64_t i) { return load(x[i]); }) / static_cast<float>(size);
    *mean = middle;
  }
  const auto centred = [&](int64_t i) {
    if constexpr (kLayer) return load(x[i]) - middle;
    return load(x[i]);
  };
  const float squares = sum_of(size, [&](int64_t i) { return centred(i) * centred(i); });
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(size) + eps);
  *rstd = scale;
  for (int64_t i = 0; i < size; ++i) {
    const float value = centred(i) * scale * weight[i];
    store(kBias ? value + bias[i] : value, normed[i]);
  }
}

template <typename T>
[[gnu::always_inline]] inline void add_row(const float* residual, const T* delta, int64_t size,
                                           float* sum) {
  for (int64_t i = 0; i < size; ++i) sum[i] = residual[i] + load(delta[i]);
}

template <bool kLayer, typename X, typename T>
[[gnu::always_inline]] inline void backward_row(const X* x, float mean, float rstd,
                                                const float* weight, const T* dy,
                                                const float* d_sum, int64_t size, X* dx) {
  const auto centred = [&](int64_t i) {
    if constexpr (kLayer) return load(x[i]) - mean;
    return load(x[i]);
  };
  const float products =
      sum_of(size, [&](int64_t i) { return load(dy[i]) * weight[i] * centred(i); });
  const float dot = products * rstd * rstd * rstd / static_cast<float>(size);
  float shift = 0.0f;
  if constexpr (kLayer)
    shift = sum_of(size, [&](int64_t i) { return load(dy[i]) * weight[i]; }) * rstd /
            static_cast<float>(size);
  for (int64_t i = 0; i < size; ++i) {
    float through_norm = rstd * weight[i] * load(dy[i]) - centred(i) * dot;
    if constexpr (kLayer) through_norm -= shift;
    store(d_sum ? d_sum[i] + through_norm : through_norm, dx[i]);
  }
}

template <bool kLayer, bool kBias, bool kStream, typename T>
[[gnu::always_inline]] inline void forward_rows(const Norm& a, int64_t begin, int64_t end) {
  using X = std::conditional_t<kStream, float, T>;
  const NormShape s = a.shape;
  for (int64_t t = begin; t < end; ++t)
    for (int64_t g = 0; g < s.groups; ++g) {
      const int64_t column = g * s.size, row = t * s.groups + g;
      const int64_t of_weight = s.weight_for_each_group ? column : 0;
      const X* x = static_cast<const X*>(a.in.x) + t * a.in.stride + column;
      if constexpr (kStream)
        if (a.delta) {
          float* sum = a.sum + t * s.width() + column;
          add_row(x, static_cast<const T*>(a.delta) + t * s.width() + column, s.size, sum);
          x = sum;
        }
      forward_row<kLayer, kBias>(x, a.weight + of_weight, kBias ? a.bias + of_weight : nullptr,
                                 a.eps, s.size, static_cast<T*>(a.normed) + t * s.width() + column,
                                 kLayer ? a.mean + row : nullptr, a.rstd + row);
    }
}

template <bool kLayer, bool kStream, typename T>
[[gnu::always_inline]] inline void backward_rows(const NormBackward& a, int64_t begin,
                                                 int64_t end) {
  using X = std::conditional_t<kStream, float, T>;
  const NormShape s = a.shape;
  for (int64_t t = begin; t < end; ++t)
    for (int64_t g = 0; g < s.groups; ++g) {
      const int64_t column = g * s.size, row = t * s.groups + g, at = t * s.width() + column;
      X* dx = static_cast<X*>(a.d_x) + at;
      backward_row<kLayer>(static_cast<const X*>(a.in.x) + t * a.in.stride + column,
                           kLayer ? a.mean[row] : 0.0f, a.rstd[row],
                           a.weight + (s.weight_for_each_group ? column : 0),
                           static_cast<const T*>(a.d_normed) + at,
                           kStream && a.d_sum ? a.d_sum + at : nullptr, s.size, dx);
      if constexpr (kStream)
        if (a.d_delta) {
          T* d_delta = static_cast<T*>(a.d_delta) + at;
          for (int64_t i = 0; i < s.size; ++i) store(dx[i], d_delta[i]);
        }
    }
}

// Columns [begin, end) of the weight, up to kLanes of a group at a time.
template <bool kLayer, bool kStream, typename T>
[[gnu::always_inline]] inline void weight_columns(const NormWeightGradient& a, int64_t begin,
                                                  int64_t end) {
  using X = std::conditional_t<kStream, float, T>;
  const NormShape s = a.shape;
  const int64_t each = s.groups / s.weight_groups();  // groups that share a weight
  int64_t count = 0;
  for (int64_t first = begin; first < end; first += count) {
    double weights[kLanes] = {}, biases[kLanes] = {};
    count = std::min<int64_t>({kLanes, end - first, s.size - first % s.size});
    for (int64_t t = 0; t < s.tokens; ++t)
      for (int64_t g = 0; g < each; ++g) {
        const int64_t column = first + g * s.size, row = t * s.groups + column / s.size;
        const X* x = static_cast<const X*>(a.in.x) + t * a.in.stride + column;
        const T* dy = static_cast<const T*>(a.d_normed) + t * s.width() + column;
        const float mean = kLayer ? a.mean[row] : 0.0f, rstd = a.rstd[row];
        for (int64_t j = 0; j < count; ++j) {
          const float centred = kLayer ? load(x[j]) - mean : load(x[j]);
          weights[j] += static_cast<double>(load(dy[j]) * (centred * rstd));
        }
        if (a.d_bias)
          for (int64_t j = 0; j < count; ++j) biases[j] += static_cast<double>(load(dy[j]));
      }
    for (int64_t j = 0; j < count; ++j) {
      if (a.d_weight) a.d_weight[first + j] += static_cast<float>(weights[j]);
      if (a.d_bias) a.d_bias[first + j] += static_cast<float>(biases[j]);
    }
  }
}

template <typename T, bool kStream>
[[gnu::always_inline]] inline void forward_kinds(const Norm& a, int64_t begin, int64_t end) {
  if (!a.shape.layer) return forward_rows<false, false, kStream, T>(a, begin, end);
  if (a.bias) return forward_rows<true, true, kStream, T>(a, begin, end);
  return forward_rows<true, false, kStream, T>(a, begin, end);
}

template <typename T, bool kStream>
[[gnu::always_inline]] inline void backward_kinds(const NormBackward& a, int64_t begin,
                                                  int64_t end) {
  if (a.shape.layer) return backward_rows<true, kStream, T>(a, begin, end);
  return backward_rows<false, kStream, T>(a, begin, end);
}

template <typename T, bool kStream>
[[gnu::always_inline]] inline void weight_kinds(const NormWeightGradient& a, int64_t begin,
                                                int64_t end) {
  if (a.shape.layer) return weight_columns<true, kStream, T>(a, begin, end);
  return weight_columns<false, kStream, T>(a, begin, end);
}

// The loops for each type of element, compiled for several instruction sets.
#define QLORA_NORM_RANGES(T, kStream)                                                             \
  QLORA_VECTORIZED void range(const Norm& a, int64_t b, int64_t e, std::type_identity<T>,         \
                              std::bool_constant<kStream>) {                                      \
    forward_kinds<T, kStream>(a, b, e);                                                           \
  }                                                                                               \
  QLORA_VECTORIZED void range(const NormBackward& a, int64_t b, int64_t e, std::type_identity<T>, \
                              std::bool_constant<kStream>) {                                      \
    backward_kinds<T, kStream>(a, b, e);                                                          \
  }                                                                                               \
  QLORA_VECTORIZED void range(const NormWeightGradient& a, int64_t b, int64_t e,                  \
                              std::type_identity<T>, std::bool_constant<kStream>) {               \
    weight_kinds<T, kStream>(a, b, e);                                                            \
  }

QLORA_NORM_RANGES(float, true)
QLORA_NORM_RANGES(uint16_t, true)
QLORA_NORM_RANGES(Float16, true)
QLORA_NORM_RANGES(float, false)
QLORA_NORM_RANGES(uint16_t, false)
QLORA_NORM_RANGES(Float16, false)
#undef QLORA_NORM_RANGES

// Each thread's range of `count` rows or columns.
template <typename Arguments>
void for_each_range(const Arguments& a, int64_t count, int64_t grain) {
  quant::with_element_type(a.shape.type, [&]<typename T>(std::type_identity<T> type) {
    parallel_for(count, grain, [&](int64_t begin, int64_t end) {
      if (a.in.is_stream)
        range(a, begin, end, type, std::true_type());
      else
        range(a, begin, end, type, std::false_type());
    });
  });
}

}  // namespace

void norm(const Norm& a) { for_each_range(a, a.shape.tokens, 16); }

void norm_backward(const NormBackward& a) { for_each_range(a, a.shape.tokens, 16); }

void norm_weight_gradient(const NormWeightGradient& a) {
  for_each_range(a, a.shape.weight_groups() * a.shape.size, 4 * kLanes);
}

}  // namespace qlora::model::cpu
