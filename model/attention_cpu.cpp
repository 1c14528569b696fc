#include <vector>

#include "base/element.h"
#include "base/lanes.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "model/attention_kernels.h"

namespace qlora::model::cpu {
namespace {

template <typename T>
[[gnu::always_inline]] inline void softmax_row(T* row, int64_t visible, int64_t keys, float scale,
                                               float* lse) {
  float most[kLanes], lanes[kLanes] = {};
  for (float& m : most) m = -3.0e38f;
  const int64_t whole = visible / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int j = 0; j < kLanes; ++j) {
      const float x = load(row[i + j]);
      most[j] = x > most[j] ? x : most[j];
    }
  for (int64_t i = whole; i < visible; ++i)
    most[i - whole] = std::max(most[i - whole], load(row[i]));
  float top = most[0];
  for (float m : most) top = m > top ? m : top;
  top *= scale;  // scale is positive
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int j = 0; j < kLanes; ++j) lanes[j] += vector_exp(load(row[i + j]) * scale - top);
  for (int64_t i = whole; i < visible; ++i)
    lanes[i - whole] += vector_exp(load(row[i]) * scale - top);
  const float sum = sum_lanes(lanes), inverse = 1.0f / sum;
  *lse = top + std::log(sum);
  for (int64_t i = 0; i < visible; ++i)
    store(vector_exp(load(row[i]) * scale - top) * inverse, row[i]);
  for (int64_t i = visible; i < keys; ++i) store(0.0f, row[i]);
}

template <typename T>
[[gnu::always_inline]] inline void probability_row(T* row, int64_t visible, int64_t keys,
                                                   float scale, float lse) {
  for (int64_t i = 0; i < visible; ++i) store(vector_exp(load(row[i]) * scale - lse), row[i]);
  for (int64_t i = visible; i < keys; ++i) store(0.0f, row[i]);
}

template <typename T>
[[gnu::always_inline]] inline void backward_row(const T* p, T* dp, int64_t visible, int64_t keys,
                                                float scale) {
  float lanes[kLanes] = {};
  const int64_t whole = visible / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int j = 0; j < kLanes; ++j) lanes[j] += load(p[i + j]) * load(dp[i + j]);
  for (int64_t i = whole; i < visible; ++i) lanes[i - whole] += load(p[i]) * load(dp[i]);
  const float dot = sum_lanes(lanes);
  for (int64_t i = 0; i < visible; ++i) store(load(p[i]) * (load(dp[i]) - dot) * scale, dp[i]);
  for (int64_t i = visible; i < keys; ++i) store(0.0f, dp[i]);
}

// One range of rows per element type; the row functions inline into each instruction set's clone.
#define QLORA_ROWS(T)                                                                          \
  QLORA_VECTORIZED void softmax_rows(const ScoreBlock& b, T* s, float* lse, int64_t begin,     \
                                     int64_t end) {                                            \
    for (int64_t r = begin; r < end; ++r)                                                      \
      softmax_row(s + r * b.keys, b.first_query + r % b.queries + 1, b.keys, b.scale,          \
                  lse + r / b.queries * b.lse_stride + r % b.queries);                         \
  }                                                                                            \
  QLORA_VECTORIZED void probability_rows(const ScoreBlock& b, T* s, const float* lse,          \
                                         int64_t begin, int64_t end) {                         \
    for (int64_t r = begin; r < end; ++r)                                                      \
      probability_row(s + r * b.keys, b.first_query + r % b.queries + 1, b.keys, b.scale,      \
                      lse[r / b.queries * b.lse_stride + r % b.queries]);                      \
  }                                                                                            \
  QLORA_VECTORIZED void backward_rows(const ScoreBlock& b, const T* p, T* dp, int64_t begin,   \
                                      int64_t end) {                                           \
    for (int64_t r = begin; r < end; ++r)                                                      \
      backward_row(p + r * b.keys, dp + r * b.keys, b.first_query + r % b.queries + 1, b.keys, \
                   b.scale);                                                                   \
  }                                                                                            \
  QLORA_VECTORIZED void decode_head(const DecodeRow<T>& row, int64_t head, int64_t kv,         \
                                    int64_t stride, int64_t d, float scale, bool first,        \
                                    float* p) {                                                \
    decode_row(row, head, kv, stride, d, scale, first, p);                                     \
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

// p [row.length] is room for the probabilities.
template <typename T>
[[gnu::always_inline]] inline void decode_row(const DecodeRow<T>& row, int64_t head, int64_t kv,
                                              int64_t stride, int64_t d, float scale, bool first,
                                              float* p) {
  const T *q = row.q + head * d, *k = row.k + kv * d, *v = row.v + kv * d;
  T* out = row.out + head * d;
  float top = -3.0e38f, lanes[kLanes] = {};
  for (int64_t t = 0; t < row.length; ++t) {
    if (first) {
      ask_for(row.k + (t + kAhead) * stride, stride);
      ask_for(row.v + t * stride, stride);
    }
    p[t] = dot(q, k + t * stride, d) * scale;
    top = p[t] > top ? p[t] : top;
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

QLORA_ROWS(float)
QLORA_ROWS(uint16_t)
QLORA_ROWS(Float16)
#undef QLORA_ROWS

int64_t rows_of(const ScoreBlock& b) { return b.kv_heads * b.group * b.queries; }

}  // namespace

template <typename T>
void causal_softmax(const ScoreBlock& block, T* scores, float* lse) {
  parallel_for(rows_of(block), 64,
               [&](int64_t b, int64_t e) { softmax_rows(block, scores, lse, b, e); });
}

template <typename T>
void causal_probabilities(const ScoreBlock& block, T* scores, const float* lse) {
  parallel_for(rows_of(block), 64,
               [&](int64_t b, int64_t e) { probability_rows(block, scores, lse, b, e); });
}

template <typename T>
void causal_softmax_backward(const ScoreBlock& block, const T* p, T* dp) {
  parallel_for(rows_of(block), 64,
               [&](int64_t b, int64_t e) { backward_rows(block, p, dp, b, e); });
}

template <typename T>
void decode_attention(const DecodeRow<T>* rows, int64_t num_rows, int64_t heads, int64_t kv_heads,
                      int64_t head_dim, float scale) {
  parallel_for(num_rows * heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> p;
    for (int64_t i = begin; i < end; ++i) {
      const DecodeRow<T>& row = rows[i / heads];
      const int64_t head = i % heads;
      p.resize(static_cast<size_t>(row.length));
      decode_head(row, head, head / (heads / kv_heads), kv_heads * head_dim, head_dim, scale,
                  i == begin || head == 0, p.data());
    }
  });
}

template void causal_softmax(const ScoreBlock&, float*, float*);
template void causal_softmax(const ScoreBlock&, uint16_t*, float*);
template void causal_softmax(const ScoreBlock&, Float16*, float*);
template void causal_probabilities(const ScoreBlock&, float*, const float*);
template void causal_probabilities(const ScoreBlock&, uint16_t*, const float*);
template void causal_probabilities(const ScoreBlock&, Float16*, const float*);
template void causal_softmax_backward(const ScoreBlock&, const float*, float*);
template void causal_softmax_backward(const ScoreBlock&, const uint16_t*, uint16_t*);
template void causal_softmax_backward(const ScoreBlock&, const Float16*, Float16*);
template void decode_attention(const DecodeRow<float>*, int64_t, int64_t, int64_t, int64_t, float);
template void decode_attention(const DecodeRow<uint16_t>*, int64_t, int64_t, int64_t, int64_t,
                               float);
template void decode_attention(const DecodeRow<Float16>*, int64_t, int64_t, int64_t, int64_t,
                               float);

}  // namespace qlora::model::cpu
