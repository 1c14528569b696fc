#include <vector>

#include "base/element.h"
#include "base/lanes.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "model/attention_kernels.h"

namespace qlora::model::cpu {
namespace {

// Compiled for several instruction sets, for each type of element.
#define QLORA_DECODE_HEAD(T)                                                            \
  QLORA_VECTORIZED void decode_head(const DecodeRow<T>& row, int64_t head, int64_t kv,  \
                                    int64_t stride, int64_t d, const ScoreRules& rules, \
                                    bool first, float* p) {                             \
    decode_row(row, head, kv, stride, d, rules, first, p);                              \
  }

constexpr int64_t kPair = 2 * kLanes;

// The dot product of d elements.
template <typename T>
[[gnu::always_inline]] inline float dot(const T* q, const T* k, int64_t d) {
  Lanes first = {}, second = {};
  int64_t i = 0;
  for (; i + kPair <= d; i += kPair) {
    Lanes q_first, q_second, k_first, k_second;
    load_pair(q + i, q_first, q_second);
    load_pair(k + i, k_first, k_second);
    first += q_first * k_first;
    second += q_second * k_second;
  }
  float sum = sum_lanes(first + second);
  for (; i < d; ++i) sum += load(q[i]) * load(k[i]);
  return sum;
}

// out = scale Σ_t weights[t] v[t * stride ...] of kPairs * kPair elements.
template <int kPairs, typename T>
[[gnu::always_inline]] inline void weigh_strip(const T* v, int64_t stride, const float* weights,
                                               int64_t length, float scale, T* out) {
  Lanes sums[kPairs][2] = {};
  for (int64_t t = 0; t < length; ++t)
    for (int p = 0; p < kPairs; ++p) {
      Lanes first, second;
      load_pair(v + t * stride + p * kPair, first, second);
      sums[p][0] += weights[t] * first;
      sums[p][1] += weights[t] * second;
    }
  for (int p = 0; p < kPairs; ++p)
    store_pair(sums[p][0] * scale, sums[p][1] * scale, out + p * kPair);
}

template <typename T>
[[gnu::always_inline]] inline void weigh_elements(const T* v, int64_t stride, const float* weights,
                                                  int64_t length, float scale, int64_t count,
                                                  T* out) {
  for (int64_t i = 0; i < count; ++i) {
    float sum = 0.0f;
    for (int64_t t = 0; t < length; ++t) sum += weights[t] * load(v[t * stride + i]);
    store(sum * scale, out[i]);
  }
}

// Since the last token all weights have been through the caches. The first head that a thread
// takes asks for keys some tokens ahead, and for values with their keys, of all heads.
constexpr int64_t kAhead = 12;

template <typename T>
[[gnu::always_inline]] inline void ask_for(const T* row, int64_t count) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(row + i);
}

// As in whole passes (float_attention_loops.h): near zero by Cephes' polynomial, to 1e-7 of its
// value.
[[gnu::always_inline]] inline float tanh_of(float x) {
  constexpr float kNear = 0.625f;
  const float square = x * x;
  float factor = -5.70498872745e-3f;
  factor = factor * square + 2.06390887954e-2f;
  factor = factor * square - 5.37397155531e-2f;
  factor = factor * square + 1.33314422036e-1f;
  factor = factor * square - 3.33332819422e-1f;
  const float near = x + x * (square * factor);
  const float beyond = 1.0f - 2.0f / (vector_exp(2.0f * x) + 1.0f);
  return square < kNear * kNear ? near : beyond;
}

// Scaled scores as the other rules leave them; the greatest.
[[gnu::always_inline]] inline float change_scores(const ScoreRules& rules, const float* bias,
                                                  int64_t length, float* p) {
  const float cap = rules.softcap;
  if (cap != 0)
    for (int64_t t = 0; t < length; ++t) p[t] = cap * tanh_of(p[t] / cap);
  if (bias != nullptr)
    for (int64_t t = 0; t < length; ++t) p[t] += bias[t];
  float top = -3.0e38f;
  for (int64_t t = 0; t < length; ++t) top = p[t] > top ? p[t] : top;
  return top;
}

// By the number of the row's key.
template <typename T>
[[gnu::always_inline]] inline const float* bias_of_row(const DecodeRow<T>& row, int64_t head,
                                                       const ScoreRules& rules) {
  return rules.bias_of(head, row.first + row.length - 1) + row.first;
}

// p [row.length] is room for the probabilities.
template <typename T>
[[gnu::always_inline]] inline void decode_row(const DecodeRow<T>& row, int64_t head, int64_t kv,
                                              int64_t stride, int64_t d, const ScoreRules& rules,
                                              bool first, float* p) {
  const T *q = row.q + head * d, *k = row.k + kv * d, *v = row.v + kv * d;
  T* out = row.out + head * d;
  const float scale = rules.scale;
  float top = -3.0e38f, lanes[kLanes] = {};
  for (int64_t t = 0; t < row.length; ++t) {
    if (first) {
      ask_for(row.k + (t + kAhead) * stride, stride);
      ask_for(row.v + t * stride, stride);
    }
    p[t] = dot(q, k + t * stride, d) * scale;
    top = p[t] > top ? p[t] : top;
  }
  if (rules.softcap != 0 || rules.bias != nullptr)
    top = change_scores(rules, rules.bias == nullptr ? nullptr : bias_of_row(row, head, rules),
                        row.length, p);
  if (rules.sinks != nullptr) {
    top = rules.sinks[head] > top ? rules.sinks[head] : top;
    lanes[0] = vector_exp(rules.sinks[head] - top);
  }
  const int64_t whole = row.length / kLanes * kLanes;
  for (int64_t t = 0; t < whole; t += kLanes)
    for (int j = 0; j < kLanes; ++j) lanes[j] += p[t + j] = vector_exp(p[t + j] - top);
  for (int64_t t = whole; t < row.length; ++t) lanes[t - whole] += p[t] = vector_exp(p[t] - top);
  const float inverse = 1.0f / sum_lanes(lanes);
  int64_t i = 0;
  for (; i + 2 * kPair <= d; i += 2 * kPair)
    weigh_strip<2>(v + i, stride, p, row.length, inverse, out + i);
  for (; i + kPair <= d; i += kPair) weigh_strip<1>(v + i, stride, p, row.length, inverse, out + i);
  weigh_elements(v + i, stride, p, row.length, inverse, d - i, out + i);
}

QLORA_DECODE_HEAD(float)
QLORA_DECODE_HEAD(uint16_t)
QLORA_DECODE_HEAD(Float16)
#undef QLORA_DECODE_HEAD

}  // namespace

template <typename T>
void decode_attention(const DecodeRow<T>* rows, int64_t num_rows, int64_t heads, int64_t kv_heads,
                      int64_t head_dim, const ScoreRules& rules) {
  parallel_for(num_rows * heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> p;
    for (int64_t i = begin; i < end; ++i) {
      const DecodeRow<T>& row = rows[i / heads];
      const int64_t head = i % heads;
      p.resize(static_cast<size_t>(row.length));
      decode_head(row, head, head / (heads / kv_heads), kv_heads * head_dim, head_dim, rules,
                  i == begin || head == 0, p.data());
    }
  });
}

template void decode_attention(const DecodeRow<float>*, int64_t, int64_t, int64_t, int64_t,
                               const ScoreRules&);
template void decode_attention(const DecodeRow<uint16_t>*, int64_t, int64_t, int64_t, int64_t,
                               const ScoreRules&);
template void decode_attention(const DecodeRow<Float16>*, int64_t, int64_t, int64_t, int64_t,
                               const ScoreRules&);

}  // namespace qlora::model::cpu
