// The forward pass with scores the other way round, [keys, queries]: a register then holds 16
// queries, so that a softmax's maxima and sums go from register to register and never across one;
// keys are read as they lie, and only values are packed for all to share. At 512 tokens and 9 heads
// of 64 this takes 0.45 of the time that [queries, keys] did.
#include "model/flash_attention_kernels.h"
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/instruction_set.h"
#include "base/parallel_for.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "base/bfloat16_tile_avx512.h"
#include "base/bfloat16_vectors_avx512.h"
#include "model/flash_attention_avx512.h"

namespace qlora::model::cpu {
namespace {

constexpr int64_t kRowGrain = 2048;  // rows of a head whose packing is worth waking a thread for

// log2(x) of a normal x > 0: the series of atanh around 1, error below 2e-7.
__m512 log2_of(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
  const __m512 e = _mm512_getexp_ps(_mm512_div_ps(x, m));
  const __m512 t = _mm512_div_ps(_mm512_sub_ps(m, one), _mm512_add_ps(m, one));
  const __m512 square = _mm512_mul_ps(t, t);
  __m512 p = _mm512_set1_ps(2.0f * kLog2e / 9.0f);
  for (const float odd : {7.0f, 5.0f, 3.0f, 1.0f})
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(2.0f * kLog2e / odd));
  return _mm512_fmadd_ps(p, t, e);
}

// Blocks of queries of one head, one after the other.
class QueryBlock {
 public:
  explicit QueryBlock(const FlashAttention& a)
      : a_(a),
        scale_(_mm512_set1_ps((a.rules.changes_scores() ? 1.0f : a.rules.scale) * kLog2e)),
        queries_(static_cast<size_t>(kPairs * a.head_dim)),
        sum_(static_cast<size_t>(kBlock * a.head_dim)) {}

  // values: the document's, packed over its keys.
  void attend(const Document& d, int64_t head, int64_t block, const uint32_t* values,
              HeadRows<uint16_t> out, float* lse) {
    const int64_t rows = d.rows(block), first = d.token(block), dim = a_.head_dim;
    const int64_t kv_head = head / (a_.heads / a_.kv_heads);
    pack_transposed(head_of(a_.q, first, head, dim), a_.q.stride, dim, rows, queries_.data(),
                    kBlock);
    start(head, block);
    with_vectors((rows + kWords - 1) / kWords, [&](auto vectors) {
      const auto meet_all = [&](auto changed) {
        const int64_t first_block = a_.rules.first_key(block * kBlock) / kBlock;
        const int64_t whole = a_.causal ? block : d.num_key_blocks;  // that all queries see
        for (int64_t j = first_block; j < whole; ++j)
          meet<vectors, false, changed>(head_of(a_.k, d.key(j), kv_head, dim),
                                        values + j * kPairs * dim, j, d.keys(j), j == first_block);
        if (a_.causal)
          meet<vectors, true, changed>(head_of(a_.k, d.key(block), kv_head, dim),
                                       values + block * kPairs * dim, block, rows,
                                       block == first_block);
      };
      if (a_.rules.changes_scores())
        meet_all(std::true_type());
      else
        meet_all(std::false_type());
      finish<vectors>(rows, head_of(out, first, head, dim), out.stride,
                      lse + head * a_.tokens() + first);
    });
  }

 private:
  // A sink is a key that all have met. The maximum of queries that have seen no key of their window
  // yet is a number, so that probabilities relative to it are none.
  void start(int64_t head, int64_t block) {
    const ScoreRules& rules = a_.rules;
    head_ = head;
    position_ = block * kBlock;
    bias_ = rules.has_distances() ? nullptr : rules.bias_of(head, position_);
    const float most = rules.sinks != nullptr ? rules.sinks[head] * kLog2e
                       : rules.window > 0     ? kLeast
                                              : -INFINITY;
    std::fill_n(most_, kSegments, _mm512_set1_ps(most));
    std::fill_n(total_, kSegments, _mm512_set1_ps(rules.sinks != nullptr ? 1.0f : 0.0f));
  }

  // On the diagonal, 16 keys meet the queries from themselves on.
  template <int kVectors, bool kDiagonal, bool kChanged>
  void meet(const uint16_t* keys, const uint32_t* values, int64_t block, int64_t count,
            bool first) {
    key_ = block * kBlock;
    if (kChanged && a_.rules.has_distances())
      a_.rules.distances_of_block(head_, position_, key_, kBlock, distances_);
    __m512 top[kVectors];
    std::fill_n(top, kVectors, _mm512_set1_ps(-INFINITY));
    if constexpr (kDiagonal) {
      diagonal_scores<0, kChanged>(keys, count, top);
    } else {
      score<0, kVectors, false, kChanged>(keys, 0, count, top);
      if (count % 2 == 1) hide_row<kVectors>(count);
    }
    __m512 factors[kVectors];
    raise_maxima(top, factors);
    const int64_t pairs = (count + 1) / 2;
    if constexpr (kDiagonal) {
      diagonal_probabilities<0, kVectors>(pairs);
      diagonal_values<0, kVectors>(values, pairs, first, factors);
    } else {
      exponentiate<0, kVectors, false>(0, pairs);
      add_values<kVectors>(0, values, pairs, first, factors);
    }
  }

  // A last key without a neighbour gets one that nobody sees.
  template <int kVectors>
  void hide_row(int64_t row) {
    for (int j = 0; j < kVectors; ++j)
      _mm512_store_ps(block_ + row * kBlock + j * kWords, _mm512_set1_ps(-INFINITY));
  }

  template <int kSegment, bool kChanged, int kVectors>
  void diagonal_scores(const uint16_t* keys, int64_t count, __m512 (&top)[kVectors]) {
    const int64_t begin = kSegment * kWords;
    score<kSegment, kVectors, true, kChanged>(keys, begin, std::min<int64_t>(begin + kWords, count),
                                              top);
    if constexpr (kSegment + 1 < kVectors)
      diagonal_scores<kSegment + 1, kChanged>(keys, count, top);
  }

  template <int kSegment, int kVectors>
  void diagonal_probabilities(int64_t pairs) {
    const int64_t begin = kSegment * kWords / 2;
    exponentiate<kSegment, kVectors, true>(begin, std::min<int64_t>(begin + kWords / 2, pairs));
    if constexpr (kSegment + 1 < kVectors) diagonal_probabilities<kSegment + 1, kVectors>(pairs);
  }

  // Two registers of queries at a time, with the keys that the last of them sees.
  template <int kVector, int kVectors>
  void diagonal_values(const uint32_t* values, int64_t pairs, bool first, const __m512* factors) {
    constexpr int kNow = std::min(2, kVectors - kVector);
    add_values<kNow>(kVector, values, std::min<int64_t>((kVector + kNow) * kWords / 2, pairs),
                     first, factors);
    if constexpr (kVector + kNow < kVectors)
      diagonal_values<kVector + kNow, kVectors>(values, pairs, first, factors);
  }

  // Scores of keys [begin, end), not scaled yet where no other rule changes them, with the queries
  // from vector kFirst on; top: the greatest of each. Rows of a tile past `end` repeat the last: on
  // the diagonal nobody sees them.
  template <int kFirst, int kVectors, bool kDiagonal, bool kChanged>
  [[gnu::noinline]] void score(const uint16_t* keys, int64_t begin, int64_t end,
                               __m512 (&top)[kVectors]) {
    constexpr int kRows = kTileRows<kVectors - kFirst>;
    for (int64_t k = begin; k < end; k += kRows) {
      __m512 acc[kRows][kVectors];
      clear_tile(acc);
      multiply_tile<kFirst>(keys + k * a_.k.stride, a_.k.stride, 2, end - k, queries_.data(),
                            kBlock, a_.head_dim / 2, acc);
      for (int i = 0; i < kRows; ++i)
        for (int j = kFirst; j < kVectors; ++j) {
          if constexpr (kChanged) acc[i][j] = change(acc[i][j], std::min(k + i, end - 1), j);
          const __mmask16 sees = visible<kDiagonal>(j == kFirst, k + i - begin);
          top[j] = _mm512_mask_max_ps(top[j], sees, top[j], acc[i][j]);
          _mm512_store_ps(block_ + (k + i) * kBlock + j * kWords, acc[i][j]);
        }
    }
  }

  // What the rules make of the products of key `k` of the block and the queries of vector j: minus
  // infinity where it is not in the window.
  __m512 change(__m512 s, int64_t k, int64_t j) const {
    const ScoreRules& rules = a_.rules;
    s = _mm512_mul_ps(s, _mm512_set1_ps(rules.scale));
    if (rules.softcap != 0)
      s = _mm512_mul_ps(tanh_of(_mm512_mul_ps(s, _mm512_set1_ps(1.0f / rules.softcap))),
                        _mm512_set1_ps(rules.softcap));
    if (bias_ != nullptr) s = _mm512_add_ps(s, _mm512_set1_ps(bias_[key_ + k]));
    if (rules.has_distances())
      s = _mm512_add_ps(s, _mm512_loadu_ps(distances_ + kBlock - 1 + j * kWords - k));
    if (rules.window == 0) return s;
    const __mmask16 sees = lanes_below(key_ + k + rules.window - position_ - j * kWords);
    return _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), sees, s);
  }

  // Lanes of queries that see key `key` of their segment.
  template <bool kDiagonal>
  static __mmask16 visible(bool own_segment, int64_t key) {
    return kDiagonal && own_segment ? static_cast<__mmask16>(0xffffu << key)
                                    : static_cast<__mmask16>(0xffff);
  }

  // factors: of the sums so far, which were relative to smaller maxima.
  template <int kVectors>
  void raise_maxima(const __m512 (&top)[kVectors], __m512 (&factors)[kVectors]) {
    for (int j = 0; j < kVectors; ++j) {
      const __m512 most = _mm512_max_ps(most_[j], _mm512_mul_ps(top[j], scale_));
      factors[j] = exp2_of(_mm512_sub_ps(most_[j], most));
      total_[j] = _mm512_mul_ps(total_[j], factors[j]);
      most_[j] = most;
    }
  }

  // Scores of pairs [begin, end) of keys -> probabilities relative to the maxima. A pair of rows of
  // scores becomes one row of words, which lies where no score is needed any more.
  template <int kFirst, int kVectors, bool kDiagonal>
  [[gnu::noinline]] void exponentiate(int64_t begin, int64_t end) {
    __m512 most[kVectors], total[kVectors];
    std::copy_n(most_, kVectors, most);
    std::copy_n(total_, kVectors, total);
    for (int64_t p = begin; p < end; ++p) {
      if constexpr (kFirst % 2 == 1)  // unseen by the queries beside the first
        _mm512_store_si512(block_ + p * kBlock + (kFirst - 1) * kWords, _mm512_setzero_si512());
      for (int j = kFirst; j < kVectors; ++j) {
        __m512 e[2];
        for (int i = 0; i < 2; ++i) {
          const __m512 s = _mm512_load_ps(block_ + (2 * p + i) * kBlock + j * kWords);
          e[i] = _mm512_maskz_mov_ps(visible<kDiagonal>(j == kFirst, 2 * (p - begin) + i),
                                     exp2_of(_mm512_fmsub_ps(s, scale_, most[j])));
        }
        total[j] = _mm512_add_ps(total[j], _mm512_add_ps(e[0], e[1]));
        _mm512_store_si512(block_ + p * kBlock + j * kWords, woven(rounded(e[0], e[1])));
      }
    }
    std::copy_n(total, kVectors, total_);
  }

  // sum [head_dim, queries] = factors · sum + valuesᵀ · probabilities of vectors from `vector` on.
  template <int kVectors>
  [[gnu::noinline]] void add_values(int vector, const uint32_t* values, int64_t pairs, bool first,
                                    const __m512* factors) {
    constexpr int kRows = kTileRows<kVectors>;
    float* sum = sum_.data() + vector * kWords;
    const auto* words = reinterpret_cast<const uint32_t*>(block_) + vector * kWords;
    for (int64_t r = 0; r < a_.head_dim; r += kRows, sum += kRows * kBlock) {
      __m512 acc[kRows][kVectors];
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kVectors; ++j)
          acc[i][j] = first ? _mm512_setzero_ps()
                            : _mm512_mul_ps(factors[vector + j],
                                            _mm512_loadu_ps(sum + i * kBlock + j * kWords));
      multiply_tile(reinterpret_cast<const uint16_t*>(values + r), 2, 2 * a_.head_dim, kRows, words,
                    kBlock, pairs, acc);
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kVectors; ++j)
          _mm512_storeu_ps(sum + i * kBlock + j * kWords, acc[i][j]);
    }
  }

  // sum / total, a query a row again.
  template <int kVectors>
  void finish(int64_t rows, uint16_t* out, int64_t stride, float* lse) {
    for (int j = 0; j < kVectors; ++j) {
      const int64_t queries = std::min<int64_t>(kWords, rows - j * kWords);
      const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.0f), total_[j]);
      for (int64_t p = 0; p < a_.head_dim / 2; p += kWords) {
        const int64_t pairs = std::min<int64_t>(kWords, a_.head_dim / 2 - p);
        __m512i square[kWords];
        for (int64_t i = 0; i < kWords; ++i) {
          const float* sum = sum_.data() + 2 * (p + std::min(i, pairs - 1)) * kBlock + j * kWords;
          square[i] = woven(rounded(_mm512_mul_ps(_mm512_loadu_ps(sum), inverse),
                                    _mm512_mul_ps(_mm512_loadu_ps(sum + kBlock), inverse)));
        }
        transpose_words(square);
        for (int64_t i = 0; i < kWords && i < queries; ++i)
          _mm512_mask_storeu_epi32(out + (j * kWords + i) * stride + 2 * p, first_lanes(pairs),
                                   square[i]);
      }
      const __m512 sums = _mm512_add_ps(most_[j], log2_of(total_[j]));
      _mm512_mask_storeu_ps(lse + j * kWords, first_lanes(queries),
                            _mm512_mul_ps(_mm512_set1_ps(kLn2), sums));
    }
  }

  const FlashAttention& a_;
  const __m512 scale_;  // of scores once the rules have changed them, in base 2
  int64_t head_ = 0;
  int64_t position_ = 0, key_ = 0;  // of the first query and key, in their document
  const float* bias_ = nullptr;     // by the key's position, or null
  float distances_[2 * kBlock];     // biases by distance, of the block of keys
  std::vector<uint32_t> queries_;
  std::vector<float> sum_;  // [head_dim, queries]
  __m512 most_[kSegments], total_[kSegments];
  alignas(64) float block_[kBlock * kBlock];  // scores, then words of probabilities
};

// Values packed over the keys: [kv_heads, pairs of all documents, head_dim].
class PackedValues {
 public:
  PackedValues(const FlashAttention& a, const std::vector<Document>& documents,
               std::vector<uint32_t>& memory)
      : dim_(a.head_dim) {
    for (const Document& d : documents) num_pairs_ += (d.num_keys + 1) / 2;
    words_ = kept_buffer(memory, a.kv_heads * num_pairs_ * dim_);
    const auto num_documents = static_cast<int64_t>(documents.size());
    const int64_t grain = kRowGrain * num_documents / std::max<int64_t>(1, a.num_keys()) + 1;
    parallel_for(num_documents * a.kv_heads, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Document& d = documents[static_cast<size_t>(i / a.kv_heads)];
        const int64_t head = i % a.kv_heads;
        pack_rows(head_of(a.v, d.key_begin, head, dim_), a.v.stride, d.num_keys, dim_, at(head, d),
                  dim_);
      }
    });
  }
  uint32_t* at(int64_t kv_head, const Document& d) const {
    return words_ + (kv_head * num_pairs_ + d.first_pair) * dim_;
  }

 private:
  int64_t dim_, num_pairs_ = 0;
  uint32_t* words_;
};

}  // namespace

bool supports_flash_avx512(int64_t head_dim) {
  return head_dim % kWords == 0 && has_avx512_bfloat16();
}

void flash_forward(const FlashAttention& a, HeadRows<uint16_t> out, float* lse) {
  const std::vector<Document> documents = documents_of(a);
  thread_local std::vector<uint32_t> memory;
  const PackedValues values(a, documents, memory);
  struct Item {
    const Document* document;
    int64_t head, block;
  };
  std::vector<Item> items;  // the longest rows first
  for (const Document& d : documents)
    for (int64_t block = d.num_blocks - 1; block >= 0; --block)
      for (int64_t head = 0; head < a.heads; ++head) items.push_back({&d, head, block});
  const int64_t group = a.heads / a.kv_heads;
  for_each_free(
      static_cast<int64_t>(items.size()), [&] { return QueryBlock(a); },
      [&](QueryBlock& queries, int64_t i) {
        const auto& [document, head, block] = items[static_cast<size_t>(i)];
        queries.attend(*document, head, block, values.at(head / group, *document), out, lse);
      });
}

}  // namespace qlora::model::cpu
