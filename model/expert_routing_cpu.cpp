#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/element.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "model/expert_routing_kernels.h"
#include "quant/elements/with_element_type.h"

namespace qlora::model::cpu {
namespace {

constexpr int64_t kElementsAThread = 4096;
constexpr int64_t kColumns = 512;  // whose sums stay in the L1 cache

int64_t grain(int64_t elements_a_token) {
  return std::max<int64_t>(1, kElementsAThread / std::max<int64_t>(1, elements_a_token));
}

// NaN is ahead of any number, as torch sorts.
bool is_ahead(float a, float b) { return a > b || (std::isnan(a) && !std::isnan(b)); }

// Inserts one expert after the other, behind its equals.
void choose_of_token(const float* logits, int64_t experts, int64_t active, int64_t* chosen) {
  int64_t count = 0;
  for (int64_t e = 0; e < experts; ++e) {
    if (count == active && !is_ahead(logits[e], logits[chosen[active - 1]])) continue;
    int64_t place = count < active ? count++ : active - 1;
    for (; place > 0 && is_ahead(logits[e], logits[chosen[place - 1]]); --place)
      chosen[place] = chosen[place - 1];
    chosen[place] = e;
  }
}

// Rows lie where no processor looks ahead: each is asked for while the ones before it are summed.
constexpr int64_t kPicksAhead = 2;
constexpr int64_t kCacheLine = 64;
enum class Access { kRead = 0, kWrite = 1 };

template <Access access>
[[gnu::always_inline]] inline void ask_for(const void* row, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += kCacheLine)
    __builtin_prefetch(static_cast<const char*>(row) + at, static_cast<int>(access));
}

template <bool kWeighted, typename T>
[[gnu::always_inline]] inline void sum_range(const SumRows& a, int64_t begin, int64_t end) {
  using Sum = std::conditional_t<kWeighted, float, T>;
  const int64_t width = a.shape.width, active = a.shape.active;
  const auto bytes = static_cast<int64_t>(sizeof(T));
  const T* const rows = static_cast<const T*>(a.rows);
  for (int64_t t = begin; t < end; ++t)
    for (int64_t first = 0; first < width; first += kColumns) {
      const int64_t count = std::min(kColumns, width - first);
      float sums[kColumns];
      std::fill_n(sums, count, 0.0f);
      for (int64_t pick = t * active; pick < (t + 1) * active; ++pick) {
        if (first == 0 && pick + kPicksAhead < end * active)
          ask_for<Access::kRead>(rows + a.shape.row_of[pick + kPicksAhead] * width, width * bytes);
        const T* row = rows + a.shape.row_of[pick] * width + first;
        const float weight = kWeighted ? a.weights[pick] : 1.0f;
        for (int64_t i = 0; i < count; ++i) sums[i] += weight * load(row[i]);
      }
      Sum* sum = static_cast<Sum*>(a.sum) + t * width + first;
      for (int64_t i = 0; i < count; ++i) store(sums[i], sum[i]);
    }
}

template <typename T>
[[gnu::always_inline]] inline void scale_row(const float* __restrict d, float weight, int64_t width,
                                             T* __restrict scaled) {
  for (int64_t i = 0; i < width; ++i) store(weight * d[i], scaled[i]);
}

template <typename T>
[[gnu::always_inline]] inline float dot(const float* d, const T* row, int64_t width) {
  float lanes[kLanes] = {};
  const int64_t whole = width / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int j = 0; j < kLanes; ++j) lanes[j] += d[i + j] * load(row[i + j]);
  for (int64_t i = whole; i < width; ++i) lanes[i - whole] += d[i] * load(row[i]);
  return sum_lanes(lanes);
}

template <typename T>
[[gnu::always_inline]] inline void backward_range(const SumRowsBackward& a, int64_t begin,
                                                  int64_t end) {
  const int64_t width = a.shape.width, active = a.shape.active;
  const auto bytes = static_cast<int64_t>(sizeof(T));
  for (int64_t t = begin; t < end; ++t) {
    const float* d = a.d_sum + t * width;
    for (int64_t pick = t * active; pick < (t + 1) * active; ++pick) {
      const int64_t at = a.shape.row_of[pick] * width;
      if (pick + kPicksAhead < end * active) {
        const int64_t ahead = a.shape.row_of[pick + kPicksAhead] * width;
        ask_for<Access::kWrite>(static_cast<T*>(a.d_rows) + ahead, width * bytes);
        if (a.d_weights)
          ask_for<Access::kRead>(static_cast<const T*>(a.rows) + ahead, width * bytes);
      }
      scale_row(d, a.weights[pick], width, static_cast<T*>(a.d_rows) + at);
      if (a.d_weights) a.d_weights[pick] = dot(d, static_cast<const T*>(a.rows) + at, width);
    }
  }
}

// The loops for each type of element, compiled for several instruction sets.
#define QLORA_EXPERT_RANGES(T)                                                                 \
  QLORA_VECTORIZED void range(const SumRows& a, int64_t b, int64_t e, std::type_identity<T>) { \
    if (a.weights) return sum_range<true, T>(a, b, e);                                         \
    sum_range<false, T>(a, b, e);                                                              \
  }                                                                                            \
  QLORA_VECTORIZED void range(const SumRowsBackward& a, int64_t b, int64_t e,                  \
                              std::type_identity<T>) {                                         \
    backward_range<T>(a, b, e);                                                                \
  }

QLORA_EXPERT_RANGES(float)
QLORA_EXPERT_RANGES(uint16_t)
QLORA_EXPERT_RANGES(Float16)
#undef QLORA_EXPERT_RANGES

// Each thread's range of tokens.
template <typename Arguments>
void for_each_range(const Arguments& a) {
  quant::with_element_type(a.shape.type, [&]<typename T>(std::type_identity<T> type) {
    parallel_for(a.shape.tokens, grain(a.shape.active * a.shape.width),
                 [&](int64_t begin, int64_t end) { range(a, begin, end, type); });
  });
}

}  // namespace

void choose_experts(const ChooseExperts& a) {
  parallel_for(a.tokens, grain(a.experts), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      choose_of_token(a.logits + t * a.experts, a.experts, a.active, a.chosen + t * a.active);
  });
}

void sum_rows(const SumRows& a) { for_each_range(a); }

void sum_rows_backward(const SumRowsBackward& a) { for_each_range(a); }

}  // namespace qlora::model::cpu
