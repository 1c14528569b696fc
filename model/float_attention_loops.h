// The loops of model/float_attention_kernels.h for one instruction set (base/simd/for_each.h).
#include "base/simd/tile_loops.h"

namespace qlora::simd::QLORA_SIMD {
namespace {
using model::cpu::blocks_of;
using model::cpu::ConstFloatRows;
using model::cpu::FloatAttention;
using model::cpu::FloatDocument;
using model::cpu::FloatRows;
using model::cpu::head_of;
using model::cpu::kBlock;
using model::cpu::kLeast;
using model::cpu::ScoreRules;

// Columns of a block of 64 in vectors of a whole panel or less; a panel never spans blocks.
constexpr int64_t kQueryPanel = (kBlock % kPanel == 0 ? kVectors : 2) * kLanes;
constexpr int64_t kPanelVectors = kQueryPanel / kLanes;

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t greatest(int64_t a, int64_t b) { return a > b ? a : b; }

// Columns [0, dim) of rows: sums += a b, panel by panel. Rows of b are read where they lie as far
// as panels are full; the rest is packed to `room`.
void multiply_columns(Strip s, int64_t rows, int64_t dim, const float* b, int64_t b_stride,
                      bool accumulate, Sums to, float* room) {
  int64_t n = 0;
  for (; n < dim; n += vectors_of(dim - n) * kLanes) {
    const int64_t vectors = vectors_of(dim - n), width = vectors * kLanes;
    if (n + width > dim) break;
    s.b = b + n;
    s.b_stride = b_stride;
    multiply_panel(vectors, s, rows, accumulate, {to.data + n, to.stride});
  }
  if (n >= dim) return;
  // A last panel that is not full: its sums go through a buffer, past which nothing is written.
  const int64_t vectors = vectors_of(dim - n), width = vectors * kLanes;
  pack_rows(b + n, b_stride, s.depth, dim - n, width, all(1.0f), room);
  float* sums = room + s.depth * width;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < dim - n; ++c)
      sums[r * width + c] = accumulate ? to.data[r * to.stride + n + c] : 0.0f;
  s.b = room;
  s.b_stride = width;
  multiply_panel(vectors, s, rows, true, {sums, width});
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < dim - n; ++c) to.data[r * to.stride + n + c] = sums[r * width + c];
}

// Room that multiply_columns needs for a block.
constexpr int64_t kColumnsRoom = 2 * kBlock * kPanel;

// tanh(x) = 1 - 2 / (e^2x + 1), to 2e-7; near zero, where that loses digits, Cephes' odd polynomial
// (tanhf.c), to 1e-7 of its value: a cap multiplies what is lost.
inline Vector tanh_of(Vector x) {
  constexpr float kFar = 30.0f;  // where it is 1, of 2 log2(e) x
  constexpr float kNear = 0.625f;
  const Vector far = subtract(zero(), multiply(x, all(2.0f * model::cpu::kLog2e)));
  const Vector power = exp2_of(subtract(zero(), greater(all(-kFar), far)));
  const Vector beyond = subtract(all(1.0f), divide(all(2.0f), add(power, all(1.0f))));
  const Vector square = multiply(x, x);
  Vector factor = all(-5.70498872745e-3f);
  factor = add(multiply(factor, square), all(2.06390887954e-2f));
  factor = add(multiply(factor, square), all(-5.37397155531e-2f));
  factor = add(multiply(factor, square), all(1.33314422036e-1f));
  factor = add(multiply(factor, square), all(-3.33332819422e-1f));
  const Vector near = add(x, multiply(x, multiply(square, factor)));
  return where_below(square, all(kNear * kNear), near, beyond);
}

// [keys, 64 queries]: scores and what is made of them.
using Scores = float[kBlock * kBlock];

// scores[k, q] = rows[k] · packed[., q] for queries of `count`; of a diagonal block, whose key k is
// query k - own, only those that see it, in whole panels. Rows beyond are zero.
void score_block(const float* rows, int64_t stride, int64_t keys, const float* packed, int64_t dim,
                 int64_t count, int64_t own, float* scores) {
  for (int64_t n = 0; n < count; n += kQueryPanel) {
    const int64_t seen = least(keys, greatest(0, n + kQueryPanel + own));
    multiply_panel(kPanelVectors, {rows, stride, 1, packed + n * dim, kQueryPanel, dim}, seen,
                   false, {scores + n, kBlock});
    for (int64_t k = seen; k < keys; ++k)
      for (int64_t i = 0; i < kQueryPanel; i += kLanes) store(zero(), scores + k * kBlock + n + i);
  }
}

// 0, 1, 2, ...
inline Vector lane_numbers() {
  float numbers[kLanes];
  for (int i = 0; i < kLanes; ++i) numbers[i] = static_cast<float>(i);
  return load(numbers);
}

// Where a block is in its document: the positions of its first query and key.
struct Place {
  int64_t query, key;
  const float* distances = nullptr;  // the block's biases by distance, where there are such
};

// With the block's biases by distance, which `room` [2 kBlock] is for.
Place place_of(const ScoreRules& rules, int64_t head, int64_t query, int64_t key, float* room) {
  if (!rules.has_distances()) return {query, key};
  rules.distances_of_block(head, query, key, kBlock, room);
  return {query, key, room};
}

// What the rules make of the products of a vector of queries from `n` on, in their place: minus
// infinity where a key is not in the window. slopes, if there is a softcap and they are asked for:
// what a score's gradient is multiplied by.
void change_scores(const ScoreRules& rules, int64_t head, const Place& place, int64_t n,
                   int64_t keys, float* scores, float* slopes) {
  const Vector scale = all(rules.scale), numbers = lane_numbers();
  const float* distances = place.distances;
  const float* bias = distances == nullptr ? rules.bias_of(head, place.query) : nullptr;
  for (int64_t k = 0; k < keys; ++k) {
    float* at = scores + k * kBlock + n;
    Vector s = multiply(load(at), scale);
    if (rules.softcap != 0) {
      const Vector t = tanh_of(multiply(s, all(1.0f / rules.softcap)));
      s = multiply(t, all(rules.softcap));
      if (slopes != nullptr) store(subtract(all(1.0f), multiply(t, t)), slopes + k * kBlock + n);
    }
    if (bias != nullptr) s = add(s, all(bias[place.key + k]));
    if (distances != nullptr) s = add(s, load(distances + kBlock - 1 + n - k));
    if (rules.window > 0) {
      const int64_t last = place.key + k + rules.window - place.query - n;  // behind those that see
      s = choose_below(numbers, all(static_cast<float>(last)), s, all(-INFINITY));
    }
    store(s, at);
  }
}

// Rows [count, dim] -> panels of kQueryPanel of them, [dim, kQueryPanel] each.
void pack_queries(const float* rows, int64_t stride, int64_t count, int64_t dim, float* packed) {
  for (int64_t n = 0; n < count; n += kQueryPanel)
    pack_columns(rows + n * stride, stride, dim, count - n, kQueryPanel, all(1.0f),
                 packed + n * dim);
}

// log2(x), lane by lane: once a query.
inline Vector log2_of(Vector x) {
  float lanes[kLanes];
  store(x, lanes);
  for (float& lane : lanes) lane = std::log2(lane);
  return load(lanes);
}

// Blocks of queries of one head, one after the other.
class QueryBlock {
 public:
  explicit QueryBlock(const FloatAttention& a)
      : a_(a),
        scale_(a.rules.changes_scores() ? 1.0f : a.rules.scale),
        queries_(static_cast<size_t>(kBlock * a.head_dim)),
        sum_(static_cast<size_t>(kBlock * a.head_dim)) {}

  void attend(const FloatDocument& d, int64_t head, int64_t block, FloatRows out, float* lse) {
    const int64_t dim = a_.head_dim, first = block * kBlock,
                  kv_head = head / (a_.heads / a_.kv_heads);
    const int64_t count = least(kBlock, d.queries - first), position = d.past + first;
    const int64_t last = a_.causal ? position + count : d.keys;
    pack_queries(head_of(a_.q, d.query + first, head, dim), a_.q.stride, count, dim,
                 queries_.data());
    start(head);
    const int64_t first_key = a_.rules.first_key(position) / kBlock * kBlock;
    for (int64_t key = first_key; key < last; key += kBlock)
      meet(head_of(a_.k, d.key + key, kv_head, dim), head_of(a_.v, d.key + key, kv_head, dim),
           least(kBlock, last - key), count, head,
           place_of(a_.rules, head, position, key, distances_), key == first_key);
    finish(count, head_of(out, d.query + first, head, dim), out.stride,
           lse == nullptr ? nullptr : lse + head * a_.tokens + d.query + first);
  }

 private:
  // A sink is a key that all have met. The maximum of queries that have seen no key of their window
  // yet is a number, so that probabilities relative to it are none.
  void start(int64_t head) {
    const float* sinks = a_.rules.sinks;
    const Vector most = sinks != nullptr      ? all(sinks[head] * model::cpu::kLog2e)
                        : a_.rules.window > 0 ? all(kLeast)
                                              : all(-INFINITY);
    const Vector total = sinks != nullptr ? all(1.0f) : zero();
    for (int64_t n = 0; n < kBlock; n += kLanes) {
      store(most, most_ + n);
      store(total, total_ + n);
    }
  }

  void meet(const float* keys, const float* values, int64_t num_keys, int64_t count, int64_t head,
            const Place& place, bool first) {
    const int64_t dim = a_.head_dim;
    // Query q sees keys up to q + own of these.
    const int64_t own = a_.causal ? place.query - place.key : kBlock;
    score_block(keys, a_.k.stride, num_keys, queries_.data(), dim, count, own, scores_);
    for (int64_t n = 0; n < count; n += kLanes) {
      const int64_t seen = least(num_keys, greatest(0, n + kLanes + own));
      if (a_.rules.changes_scores())
        change_scores(a_.rules, head, place, n, seen, scores_, nullptr);
      soften(n, seen, own, first);
    }
    for (int64_t n = 0; n < count; n += kQueryPanel) {
      const int64_t seen = least(num_keys, greatest(0, n + kQueryPanel + own));
      multiply_panel(kPanelVectors, {values, 1, a_.v.stride, scores_ + n, kBlock, seen}, dim,
                     !first, {sum_.data() + n, kBlock});
    }
  }

  // Scores of a vector of queries -> probabilities relative to the greatest so far; the sums so far
  // are made relative to it, too.
  void soften(int64_t n, int64_t seen, int64_t own, bool first) {
    const Vector scale = all(scale_ * model::cpu::kLog2e);
    const Vector numbers = add(lane_numbers(), all(static_cast<float>(n + own)));
    Vector top = all(-INFINITY);
    // A key is seen by the lanes whose number is not below its own.
    const auto is_whole = [&](int64_t k) { return k <= n + own; };
    for (int64_t k = 0; k < seen; ++k) {
      const Vector s = load(scores_ + k * kBlock + n);
      top = greater(
          top,
          is_whole(k) ? s : choose_below(numbers, all(static_cast<float>(k)), all(-INFINITY), s));
    }
    const Vector before = load(most_ + n), most = greater(before, multiply(top, scale));
    const Vector factor = exp2_of(subtract(before, most));
    Vector total = multiply(load(total_ + n), factor);
    for (int64_t k = 0; k < seen; ++k) {
      float* at = scores_ + k * kBlock + n;
      Vector p = exp2_of(subtract(multiply(load(at), scale), most));
      if (!is_whole(k)) p = choose_below(numbers, all(static_cast<float>(k)), zero(), p);
      total = add(total, p);
      store(p, at);
    }
    // Keys that the rest of the panel sees.
    for (int64_t k = seen; k < kBlock; ++k) store(zero(), scores_ + k * kBlock + n);
    store(most, most_ + n);
    store(total, total_ + n);
    if (first) return;
    for (int64_t c = 0; c < a_.head_dim; ++c) {
      float* at = sum_.data() + c * kBlock + n;
      store(multiply(load(at), factor), at);
    }
  }

  // sum / total, a query a row again.
  void finish(int64_t count, float* out, int64_t stride, float* lse) {
    const int64_t dim = a_.head_dim;
    for (int64_t n = 0; n < count; n += kLanes) {
      const Vector total = load(total_ + n), inverse = divide(all(1.0f), total);
      const int64_t queries = least(kLanes, count - n);
      for (int64_t c = 0; c < dim; c += kLanes) {
        Vector square[kLanes];
        for (int64_t i = 0; i < kLanes; ++i)
          square[i] = multiply(load(sum_.data() + least(c + i, dim - 1) * kBlock + n), inverse);
        transpose(square);
        for (int64_t i = 0; i < kLanes && i < queries; ++i)
          store_first(square[i], out + (n + i) * stride + c, dim - c);
      }
      if (lse == nullptr) continue;
      store_first(multiply(all(model::cpu::kLn2), add(load(most_ + n), log2_of(total))), lse + n,
                  queries);
    }
  }

  const FloatAttention& a_;
  const float scale_;           // of scores once the rules have changed them
  std::vector<float> queries_;  // packed
  std::vector<float> sum_;      // [head_dim, 64 queries]
  float most_[kBlock], total_[kBlock];
  float distances_[2 * kBlock];
  alignas(64) Scores scores_;
};

// Blocks of keys of a key-value head, one after the other: each meets all queries that see it, of
// all heads that share it, so that the gradients of its keys and values are summed in one place.
// Those of the queries are summed over blocks of keys, always in the keys' order: threads wait for
// one another.
class KeyBlock {
 public:
  explicit KeyBlock(model::cpu::Backward& b)
      : b_(b),
        a_(b.a),
        scale_(b.a.rules.changes_scores() ? 1.0f : b.a.rules.scale),
        queries_(static_cast<size_t>(kBlock * b.a.head_dim)),
        d_outs_(static_cast<size_t>(kBlock * b.a.head_dim)),
        room_(static_cast<size_t>(kColumnsRoom)) {}

  void differentiate(const FloatDocument& d, int64_t kv_head, int64_t block, int64_t first_block,
                     int64_t all_blocks) {
    const int64_t dim = a_.head_dim, group = a_.heads / a_.kv_heads;
    const int64_t row = block * kBlock, keys = least(kBlock, d.keys - row);
    const float* k = head_of(a_.k, d.key + row, kv_head, dim);
    const float* v = head_of(a_.v, d.key + row, kv_head, dim);
    const Sums dk{head_of(b_.gradients.k, d.key + row, kv_head, dim), b_.gradients.k.stride};
    const Sums dv{head_of(b_.gradients.v, d.key + row, kv_head, dim), b_.gradients.v.stride};
    bool begun = false;
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      for (int64_t q = a_.causal ? block : 0; q < blocks_of(d.queries); ++q) {
        const int64_t first = a_.rules.first_key(q * kBlock) / kBlock;  // that these queries meet
        if (first > block) break;
        std::atomic<int32_t>& met =
            b_.met[static_cast<size_t>(head * all_blocks + first_block + q)];
        while (first < block && met.load(std::memory_order_acquire) < block)
          std::this_thread::yield();
        meet(d, head, q, block, keys, k, v, dk, dv, begun, first < block);
        met.store(static_cast<int32_t>(block + 1), std::memory_order_release);
        begun = true;
      }
  }

 private:
  void meet(const FloatDocument& d, int64_t head, int64_t q_block, int64_t block, int64_t keys,
            const float* k, const float* v, Sums dk, Sums dv, bool begun, bool dq_begun) {
    const int64_t dim = a_.head_dim, row = q_block * kBlock, count = least(kBlock, d.queries - row);
    const float* q = head_of(a_.q, d.query + row, head, dim);
    const float* d_out = head_of(b_.d_out, d.query + row, head, dim);
    const int64_t own = a_.causal ? row - block * kBlock : kBlock;  // 0 on the diagonal
    pack_queries(q, a_.q.stride, count, dim, queries_.data());
    pack_queries(d_out, b_.d_out.stride, count, dim, d_outs_.data());
    score_block(k, a_.k.stride, keys, queries_.data(), dim, count, own, p_);
    score_block(v, a_.v.stride, keys, d_outs_.data(), dim, count, own, ds_);
    const int64_t first = head * a_.tokens + d.query + row;
    const Place place = place_of(a_.rules, head, row, block * kBlock, distances_);
    for (int64_t n = 0; n < count; n += kLanes) {
      if (a_.rules.changes_scores()) change_scores(a_.rules, head, place, n, keys, p_, slopes_);
      differentiate_scores(n, least(kLanes, count - n), keys, own, b_.lse + first, b_.dot + first);
      if (a_.rules.softcap != 0) take_slopes(n, keys);
    }
    // Keys in groups of whole tiles: each meets the queries from the first that sees it on.
    constexpr int64_t kGroup = 24;
    for (int64_t g = 0; g < keys; g += kGroup) {
      const int64_t rows = least(kGroup, keys - g), from = own == 0 ? g : 0;
      if (from >= count) break;
      multiply_columns({p_ + g * kBlock + from, kBlock, 1, nullptr, 0, count - from}, rows, dim,
                       d_out + from * b_.d_out.stride, b_.d_out.stride, begun,
                       {dv.data + g * dv.stride, dv.stride}, room_.data());
      multiply_columns({ds_ + g * kBlock + from, kBlock, 1, nullptr, 0, count - from}, rows, dim,
                       q + from * a_.q.stride, a_.q.stride, begun,
                       {dk.data + g * dk.stride, dk.stride}, room_.data());
    }
    const FloatRows& to = b_.gradients.q;
    float* dq = head_of(to, d.query + row, head, dim);
    for (int64_t g = 0; g < count; g += kGroup) {
      const int64_t rows = least(kGroup, count - g), seen = least(keys, own + g + rows);
      multiply_columns({ds_ + g, 1, kBlock, nullptr, 0, seen}, rows, dim, k, a_.k.stride, dq_begun,
                       {dq + g * to.stride, to.stride}, room_.data());
    }
  }

  // p_: scores -> probabilities; ds_: their gradient -> that of the scores before scaling. Zero
  // where a key is not seen.
  void differentiate_scores(int64_t n, int64_t queries, int64_t keys, int64_t own, const float* lse,
                            const float* dot) {
    const Vector scale = all(a_.rules.scale), scale2 = all(scale_ * model::cpu::kLog2e);
    const Vector most = multiply(load_first(lse + n, queries), all(model::cpu::kLog2e));
    const Vector dots = load_first(dot + n, queries);
    const Vector numbers = add(lane_numbers(), all(static_cast<float>(n + own)));
    for (int64_t k = 0; k < keys; ++k) {
      float *p_at = p_ + k * kBlock + n, *ds_at = ds_ + k * kBlock + n;
      Vector p = exp2_of(subtract(multiply(load(p_at), scale2), most));
      if (k > n + own) p = choose_below(numbers, all(static_cast<float>(k)), zero(), p);
      store(p, p_at);
      store(multiply(multiply(p, scale), subtract(load(ds_at), dots)), ds_at);
    }
  }

  void take_slopes(int64_t n, int64_t keys) {
    for (int64_t k = 0; k < keys; ++k) {
      float* at = ds_ + k * kBlock + n;
      store(multiply(load(at), load(slopes_ + k * kBlock + n)), at);
    }
  }

  model::cpu::Backward& b_;
  const FloatAttention& a_;
  const float scale_;                    // of scores once the rules have changed them
  std::vector<float> queries_, d_outs_;  // packed
  std::vector<float> room_;
  float distances_[2 * kBlock];
  alignas(64) Scores p_, ds_, slopes_;
};

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD
