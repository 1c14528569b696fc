// The backward pass, one block of keys of a key-value head after the other: it meets all queries
// that see it, of all heads that share it, so that the gradients of its keys and values are summed
// in one place. Those of the queries are summed in fp32 over blocks of keys, always in the keys'
// order: threads wait for one another, and the bits do not depend on their number.
#include "model/flash_attention_kernels.h"
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <thread>
#include <type_traits>

#include "base/parallel_for.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "base/bfloat16_tile_avx512.h"
#include "base/bfloat16_vectors_avx512.h"
#include "model/flash_attention_avx512.h"
#include "model/flash_attention_sums_avx512.h"

namespace qlora::model::cpu {
namespace {

// Queries that a block of keys meets at once: twice a block halves how often sums of its gradients
// pass through memory, 6 % of the time at 8192 tokens.
constexpr int kQueries = 2 * kBlock;

struct Backward {
  const FlashAttention& a;
  HeadRows<const uint16_t> d_out;
  FlashGradients gradients;
  const float* lse;  // [heads, tokens]
  const float* dot;  // [heads, tokens]: out · d_out
  float* dq;         // [heads, tokens, head_dim], before the last block of keys
  std::vector<std::atomic<int32_t>> met;  // by head and block of queries: blocks of keys dq has
};

// Blocks of keys that one thread takes through all queries together: each query is then packed, and
// its gradient so far read and written, once for all of them. At 8192 tokens and heads of 64 this
// takes 0.74 of the time that single blocks take. Fewer where threads would run out of work, and no
// more than a second-level cache holds (460 KB); the bits are the same.
int64_t chunk_blocks(const FlashAttention& a, int64_t num_key_blocks) {
  const int64_t shared = num_key_blocks * a.kv_heads / (6 * num_threads());
  return std::max<int64_t>(1, std::min(shared, 512 / a.head_dim));
}

// Chunks of keys, one after the other.
class KeyChunk {
 public:
  // Of up to `num_blocks`. Takes all its memory here: a thread that failed later would be waited
  // for.
  KeyChunk(Backward& b, int64_t num_blocks)
      : b_(b), a_(b.a), blocks_(static_cast<size_t>(num_blocks)) {
    const int64_t words = kPairs * a_.head_dim, sums = kBlock * a_.head_dim;
    words_ = std::make_unique_for_overwrite<uint32_t[]>(
        static_cast<size_t>((4 + 3 * num_blocks) * words));
    sums_ = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(2 * num_blocks * sums));
    queries_ = words_.get();
    d_outs_ = queries_ + 2 * words;
    uint32_t* next_words = d_outs_ + 2 * words;
    float* next_sums = sums_.get();
    for (KeyBlock& keys : blocks_) {
      keys = {
          next_words, next_words + words, next_words + 2 * words, next_sums, next_sums + sums, 0, 0,
          false};
      next_words += 3 * words;
      next_sums += 2 * sums;
    }
  }

  void differentiate(const Document& d, int64_t kv_head, int64_t begin, int64_t end) {
    const int64_t group = a_.heads / a_.kv_heads;
    for (int64_t j = begin; j < end; ++j) pack_keys(d, kv_head, j, block(j - begin));
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      for (int64_t first = a_.causal ? begin / 2 * kQueries : 0; first < d.length;
           first += kQueries) {
        const int64_t first_block = a_.rules.first_key(first) / kBlock;  // that these queries meet
        if (first_block >= end) break;
        std::atomic<int32_t>& met =
            b_.met[static_cast<size_t>(head * num_blocks() + d.first_block + first / kBlock)];
        while (first_block < begin && met.load(std::memory_order_acquire) < begin)
          std::this_thread::yield();
        const Queries queries = pack_queries(d, head, first);
        const int64_t behind = a_.causal ? (first + queries.count + kBlock - 1) / kBlock : end;
        for (int64_t j = std::max(begin, first_block); j < std::min(end, behind); ++j)
          meet(queries, encounter(d, first, j, first_block), block(j - begin));
        met.store(static_cast<int32_t>(end), std::memory_order_release);
      }
    for (int64_t j = begin; j < end; ++j) {
      const KeyBlock& keys = block(j - begin);
      store(keys.dk, keys.count, b_.gradients.k, d.key(j), kv_head);
      store(keys.dv, keys.count, b_.gradients.v, d.key(j), kv_head);
    }
  }

 private:
  using Range = std::pair<int64_t, int64_t>;

  struct KeyBlock {
    uint32_t *keys_t, *values_t, *keys;  // packed over head_dim or over the tokens
    float *dk, *dv;                      // [64, head_dim]
    int64_t count, first;                // of keys; the position of the first
    bool started;                        // whether anything is in dk and dv
  };

  // Up to 128 rows of a head.
  struct Queries {
    int64_t head, token, position, count;
    const uint16_t *q, *d_out;
  };

  // A block of keys beside queries. `own`: the row of its first key among them, negative if before
  // them. Where attention is causal, the block's own queries are the rows from there on, and those
  // behind them see all of it; else all rows do.
  struct Encounter {
    int64_t own;
    bool first, last;  // of the queries' blocks of keys; `last`: of those that are seen whole
  };

  Encounter encounter(const Document& d, int64_t first, int64_t j, int64_t first_block) const {
    if (a_.causal) return {j * kBlock - first, j == first_block, false};
    return {-kBlock, j == first_block, j + 1 == d.num_key_blocks};
  }

  KeyBlock& block(int64_t j) { return blocks_[static_cast<size_t>(j)]; }

  void pack_keys(const Document& d, int64_t kv_head, int64_t j, KeyBlock& to) {
    const int64_t dim = a_.head_dim;
    to.count = d.keys(j);
    to.first = j * kBlock;
    to.started = false;
    const uint16_t* k = head_of(a_.k, d.key(j), kv_head, dim);
    const uint16_t* v = head_of(a_.v, d.key(j), kv_head, dim);
    pack_transposed(k, a_.k.stride, dim, to.count, to.keys_t, kBlock);
    pack_transposed(v, a_.v.stride, dim, to.count, to.values_t, kBlock);
    pack_rows(k, a_.k.stride, to.count, dim, to.keys, dim);
  }

  Queries pack_queries(const Document& d, int64_t head, int64_t row) {
    const int64_t dim = a_.head_dim, first = d.begin + row;
    const int64_t rows = std::min<int64_t>(kQueries, d.length - row);
    const uint16_t* q = head_of(a_.q, first, head, dim);
    const uint16_t* d_out = head_of(b_.d_out, first, head, dim);
    pack_rows(q, a_.q.stride, rows, dim, queries_, dim);
    pack_rows(d_out, b_.d_out.stride, rows, dim, d_outs_, dim);
    // Past the last row: probabilities of zero.
    const float* lse = b_.lse + head * a_.tokens() + first;
    const float* dot = b_.dot + head * a_.tokens() + first;
    for (int64_t r = 0; r < kQueries; r += kWords) {
      const __mmask16 mask = r < rows ? first_lanes(rows - r) : static_cast<__mmask16>(0);
      _mm512_store_ps(lse_ + r,
                      _mm512_mul_ps(_mm512_set1_ps(kLog2e),
                                    _mm512_mask_loadu_ps(_mm512_set1_ps(INFINITY), mask, lse + r)));
      _mm512_store_ps(dot_ + r, _mm512_mul_ps(_mm512_set1_ps(a_.rules.scale),
                                              _mm512_maskz_loadu_ps(mask, dot + r)));
    }
    return {head, first, row, rows, q, d_out};
  }

  void meet(const Queries& queries, const Encounter& met, KeyBlock& keys) {
    const int64_t dim = a_.head_dim, pairs = (queries.count + 1) / 2, own = met.own;
    const int64_t begin = std::max<int64_t>(own, 0);
    const int64_t whole = std::clamp<int64_t>(own + kBlock, 0, queries.count);
    const auto score_all = [&](auto changed) {
      for (int64_t r = begin; r < whole; r += kWords)
        with_vectors((r - own) / kWords + 1, [&](auto vectors) {
          score<vectors, true, changed>(queries, keys, r, std::min(r + kWords, whole));
        });
      score<kSegments, false, changed>(queries, keys, whole, queries.count);
    };
    if (a_.rules.changes_scores() || (!a_.causal && keys.count < kBlock))
      score_all(std::true_type());
    else
      score_all(std::false_type());
    const auto queries_of = [&](int64_t key, int) {
      return Range(std::max<int64_t>(own + key, 0) / 2, pairs);
    };
    accumulate<2, 2 * kBlock>(reinterpret_cast<const uint16_t*>(woven_p_), keys.count, d_outs_, dim,
                              queries_of, {keys.dv, keys.started, nullptr, 0});
    accumulate<2, 2 * kBlock>(reinterpret_cast<const uint16_t*>(woven_ds_), keys.count, queries_,
                              dim, queries_of, {keys.dk, keys.started, nullptr, 0});
    keys.started = true;
    const HeadRows<uint16_t>& to = b_.gradients.q;
    float* dq = b_.dq + (queries.head * a_.tokens() + queries.token) * dim;
    const auto out = [&](int64_t row) {
      return head_of(to, queries.token + row, queries.head, dim);
    };
    const auto own_keys = [&](int64_t query, int count) {
      return Range(0, std::min<int64_t>((query + count) / 2, (keys.count + 1) / 2));
    };
    const auto all_keys = [&](int64_t, int) { return Range(0, (keys.count + 1) / 2); };
    accumulate<kBlock, 2>(ds_ + begin * kBlock, whole - begin, keys.keys, dim, own_keys,
                          {dq + begin * dim, !met.first, out(begin), to.stride});
    accumulate<kBlock, 2>(
        ds_ + whole * kBlock, queries.count - whole, keys.keys, dim, all_keys,
        {dq + whole * dim, !met.first, met.last ? out(whole) : nullptr, to.stride});
  }

  int64_t num_blocks() const { return static_cast<int64_t>(b_.met.size()) / a_.heads; }

  // P and dS of queries [begin, end), a tile at a time.
  template <int kVectors, bool kDiagonal, bool kChanged>
  void score(const Queries& queries, const KeyBlock& keys, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r += kTileRows<kVectors>) {
      probabilities<kVectors, kDiagonal, kChanged>(queries, keys, r, end - r, r - begin);
      score_gradients<kVectors, kChanged>(queries.d_out + r * b_.d_out.stride, keys.values_t, r,
                                          end - r);
    }
  }

  // P of queries from r on: in fp32, and pairs of rows woven for the product over queries. On the
  // diagonal query r is number `own` of the segment of keys that it is in.
  template <int kVectors, bool kDiagonal, bool kChanged>
  [[gnu::noinline]] void probabilities(const Queries& queries, const KeyBlock& keys, int64_t r,
                                       int64_t rows, int64_t own) {
    constexpr int kRows = kTileRows<kVectors>;
    __m512 p[kRows][kVectors];
    clear_tile(p);
    multiply_tile(queries.q + r * a_.q.stride, a_.q.stride, 2, rows, keys.keys_t, kBlock,
                  a_.head_dim / 2, p);
    const __m512 scale = _mm512_set1_ps((kChanged ? 1.0f : a_.rules.scale) * kLog2e);
    for (int i = 0; i < kRows; i += 2)
      for (int j = 0; j < kVectors; ++j) {
        for (int l = i; l < i + 2; ++l) {
          if constexpr (kChanged)
            p[l][j] =
                change(p[l][j], queries, keys, r + l, j, slopes_ + (l * kVectors + j) * kWords);
          p[l][j] = exp2_of(_mm512_fmsub_ps(p[l][j], scale, _mm512_set1_ps(lse_[r + l])));
          if (kDiagonal && j + 1 == kVectors)
            p[l][j] = _mm512_maskz_mov_ps(first_lanes(own + l + 1), p[l][j]);
          _mm512_store_ps(p_ + (l * kVectors + j) * kWords, p[l][j]);
        }
        _mm512_store_si512(woven_p_ + (r + i) / 2 * kBlock + j * kWords,
                           woven(rounded(p[i][j], p[i + 1][j])));
      }
  }

  // What the rules make of the products of query `row` and the keys of vector j: minus infinity
  // where they are not in its window, or there are none. slope, with a softcap: what their gradient
  // is multiplied by.
  __m512 change(__m512 s, const Queries& queries, const KeyBlock& keys, int64_t row, int64_t j,
                float* slope) const {
    const ScoreRules& rules = a_.rules;
    s = _mm512_mul_ps(s, _mm512_set1_ps(rules.scale));
    if (rules.softcap != 0) {
      const __m512 t = tanh_of(_mm512_mul_ps(s, _mm512_set1_ps(1.0f / rules.softcap)));
      _mm512_store_ps(slope, _mm512_fnmadd_ps(t, t, _mm512_set1_ps(1.0f)));
      s = _mm512_mul_ps(t, _mm512_set1_ps(rules.softcap));
    }
    const int64_t position = queries.position + std::min(row, queries.count - 1);
    const int64_t first_key = keys.first + j * kWords;
    const __mmask16 present = lanes_below(keys.count - j * kWords);
    if (rules.bias != nullptr)
      s = _mm512_add_ps(
          s, _mm512_maskz_loadu_ps(present, rules.bias_of(queries.head, position) + first_key));
    if (!a_.causal) s = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), present, s);
    if (rules.window == 0) return s;
    const int64_t first_seen = position - rules.window + 1 - first_key;
    return _mm512_mask_mov_ps(s, lanes_below(first_seen), _mm512_set1_ps(-INFINITY));
  }

  // dS of the same queries: rows as the product over keys takes them, and woven.
  template <int kVectors, bool kChanged>
  [[gnu::noinline]] void score_gradients(const uint16_t* d_out, const uint32_t* values_t, int64_t r,
                                         int64_t rows) {
    constexpr int kRows = kTileRows<kVectors>;
    __m512 ds[kRows][kVectors];
    clear_tile(ds);
    multiply_tile(d_out, b_.d_out.stride, 2, rows, values_t, kBlock, a_.head_dim / 2, ds);
    const __m512 scale = _mm512_set1_ps(a_.rules.scale);
    const bool has_slopes = kChanged && a_.rules.softcap != 0;
    for (int i = 0; i < kRows; i += 2)
      for (int j = 0; j < kVectors; ++j) {
        for (int l = i; l < i + 2; ++l) {
          const int at = (l * kVectors + j) * kWords;
          ds[l][j] = _mm512_mul_ps(_mm512_load_ps(p_ + at),
                                   _mm512_fmsub_ps(ds[l][j], scale, _mm512_set1_ps(dot_[r + l])));
          if (kChanged && has_slopes)
            ds[l][j] = _mm512_mul_ps(ds[l][j], _mm512_load_ps(slopes_ + at));
        }
        const __m512i both = rounded(ds[i][j], ds[i + 1][j]);
        uint16_t* to = ds_ + (r + i) * kBlock + j * kWords;
        _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(both));
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + kBlock),
                           _mm512_extracti64x4_epi64(both, 1));
        _mm512_store_si512(woven_ds_ + (r + i) / 2 * kBlock + j * kWords, woven(both));
      }
  }

  void store(const float* sum, int64_t count, const HeadRows<uint16_t>& to, int64_t first,
             int64_t kv_head) {
    uint16_t* out = head_of(to, first, kv_head, a_.head_dim);
    for (int64_t t = 0; t < count; ++t)
      for (int64_t c = 0; c < a_.head_dim; c += kWords)
        store_bfloat16(_mm512_loadu_ps(sum + t * a_.head_dim + c), out + t * to.stride + c, 0xffff);
  }

  Backward& b_;
  const FlashAttention& a_;
  std::vector<KeyBlock> blocks_;
  std::unique_ptr<uint32_t[]> words_;
  std::unique_ptr<float[]> sums_;
  uint32_t *queries_ = nullptr, *d_outs_ = nullptr;  // a block's, packed over the tokens
  alignas(64) float lse_[kQueries], dot_[kQueries];  // lse in base 2, dot scaled
  // Of the greatest tile: probabilities, and what a softcap multiplies their gradient by.
  alignas(64) float p_[kTileRows<3> * 3 * kWords], slopes_[kTileRows<3> * 3 * kWords];
  alignas(64) uint32_t woven_p_[kBlock * kBlock], woven_ds_[kBlock * kBlock];
  alignas(64) uint16_t ds_[kQueries * kBlock];
};

// Rows of out · d_out, as they lie in memory.
void row_dots(const FlashAttention& a, HeadRows<const uint16_t> out, HeadRows<const uint16_t> d_out,
              float* dot) {
  parallel_for(a.tokens(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t head = 0; head < a.heads; ++head) {
        const uint16_t* o = head_of(out, t, head, a.head_dim);
        const uint16_t* g = head_of(d_out, t, head, a.head_dim);
        __m512 sum = _mm512_setzero_ps();
        for (int64_t c = 0; c < a.head_dim; c += 2 * kWords) {
          const __mmask16 mask = first_lanes((a.head_dim - c) / 2);
          sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_maskz_loadu_epi32(mask, o + c),
                                 (__m512bh)_mm512_maskz_loadu_epi32(mask, g + c));
        }
        dot[head * a.tokens() + t] = _mm512_reduce_add_ps(sum);
      }
  });
}

}  // namespace

void flash_backward(const FlashAttention& a, HeadRows<const uint16_t> out,
                    HeadRows<const uint16_t> d_out, const float* lse, FlashGradients gradients) {
  const std::vector<Document> documents = documents_of(a);
  struct Item {
    const Document* document;
    int64_t kv_head, begin, end;  // blocks of keys
  };
  int64_t num_blocks = 0, num_key_blocks = 0;
  for (const Document& d : documents) {
    num_blocks += d.num_blocks;
    num_key_blocks += d.num_key_blocks;
  }
  const int64_t chunk = chunk_blocks(a, num_key_blocks);
  std::vector<Item> items;  // a thread waits only for what another one has begun
  for (const Document& d : documents)
    for (int64_t begin = 0; begin < d.num_key_blocks; begin += chunk)
      for (int64_t head = 0; head < a.kv_heads; ++head)
        items.push_back({&d, head, begin, std::min(begin + chunk, d.num_key_blocks)});
  thread_local std::vector<float> dot_memory, dq_memory;
  float* const dot = kept_buffer(dot_memory, a.heads * a.tokens());
  row_dots(a, out, d_out, dot);
  Backward b{a,
             d_out,
             gradients,
             lse,
             dot,
             kept_buffer(dq_memory, a.heads * a.tokens() * a.head_dim),
             std::vector<std::atomic<int32_t>>(static_cast<size_t>(a.heads * num_blocks))};
  for_each_free(
      static_cast<int64_t>(items.size()), [&] { return KeyChunk(b, chunk); },
      [&](KeyChunk& keys, int64_t i) {
        const Item& item = items[static_cast<size_t>(i)];
        keys.differentiate(*item.document, item.kv_head, item.begin, item.end);
      });
}

}  // namespace qlora::model::cpu
