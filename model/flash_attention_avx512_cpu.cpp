#include "model/flash_attention_kernels.h"
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "base/parallel_for.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "base/bfloat16_tile_avx512.h"

namespace qlora::model::cpu {
namespace {
using namespace avx512;

constexpr int kBlock = 64;          // queries and keys of a block
constexpr int kPairs = kBlock / 2;  // of neighbouring tokens in it
constexpr int kRows = 4;            // of a register tile
constexpr int kVectors = kBlock / kWords;
constexpr float kLog2e = 1.44269504088896341f, kLn2 = 0.693147180559945309f;

// 2^x: degree-5 polynomial on [-1/2, 1/2], relative error below 3e-7; 0 far below zero.
inline __m512 exp2_of(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-1000.0f), x);  // a NaN stays one
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(1.33336498e-3f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.61793571e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.55036128e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.40226507e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.93147182e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

// bf16 bits in the lower half of each lane.
inline __m512i bits_of(__m512 x) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)); }

// One document, in blocks.
struct Document {
  int64_t begin, length, num_blocks;
  int64_t first_block;  // of all documents' blocks
};

std::vector<Document> documents_of(const FlashAttention& a) {
  std::vector<Document> all;
  int64_t block = 0;
  for (size_t d = 0; d + 1 < a.cu_seqlens.size(); ++d) {
    const int64_t begin = a.cu_seqlens[d], length = a.cu_seqlens[d + 1] - begin;
    all.push_back({begin, length, (length + kBlock - 1) / kBlock, block});
    block += all.back().num_blocks;
  }
  return all;
}

int64_t count_blocks(const std::vector<Document>& documents) {
  return documents.back().first_block + documents.back().num_blocks;
}

// Words of one packed block of keys or values, either way round.
int64_t block_words(const FlashAttention& a) { return kPairs * a.head_dim; }

const uint16_t* head_of(const HeadRows<const uint16_t>& rows, int64_t token, int64_t head,
                        int64_t head_dim) {
  return rows.data + token * rows.stride + head * head_dim;
}

// A block of one head's rows, as the second operand of a product over head_dim (transposed) ...
void pack_block_transposed(const FlashAttention& a, const HeadRows<const uint16_t>& rows,
                           int64_t head, const Document& d, int64_t block, uint32_t* words) {
  const int64_t first = block * kBlock;
  pack_transposed(head_of(rows, d.begin + first, head, a.head_dim), rows.stride, a.head_dim,
                  std::min<int64_t>(kBlock, d.length - first), words, kBlock);
}

// ... or over the tokens; tokens past the document's end count as zero.
void pack_block_rows(const FlashAttention& a, const HeadRows<const uint16_t>& rows, int64_t head,
                     const Document& d, int64_t block, uint32_t* words) {
  const int64_t first = block * kBlock, depth = std::min<int64_t>(kBlock, d.length - first);
  pack_rows(head_of(rows, d.begin + first, head, a.head_dim), rows.stride, depth, a.head_dim, words,
            a.head_dim);
  const int64_t filled = (depth + 1) / 2 * a.head_dim;
  std::memset(words + filled, 0, static_cast<size_t>(block_words(a) - filled) * sizeof(uint32_t));
}

// Calls visit(item) for [0, count) on all threads, whichever is free next.
template <typename Visit>
void for_each_free(int64_t count, const Visit& visit) {
  std::atomic<int64_t> next{0};
  parallel_for(std::min<int64_t>(count, num_threads()), 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < count; i = next++) visit(i);
  });
}

// Rows [0, rows) of a block product, by tiles: acc = a * packed, handed to store(row, tile).
template <typename Store>
[[gnu::always_inline]] inline void score_tiles(const uint16_t* a, int64_t stride, int64_t rows,
                                               const uint32_t* packed, int64_t pairs,
                                               const Store& store) {
  for (int64_t r = 0; r < rows; r += kRows) {
    __m512 acc[kRows][kVectors];
    clear_tile(acc);
    multiply_tile(a + r * stride, stride, 2, rows - r, packed, kBlock, pairs, acc);
    store(r, acc);
  }
}

// sum [rows, head_dim] (fp32) = factor(row) * sum + a * packed; packed [pairs, head_dim].
template <int kVectorsNow>
[[gnu::always_inline]] inline void accumulate_columns(const uint16_t* a, int64_t row_stride,
                                                      int64_t pair_stride, int64_t rows,
                                                      const uint32_t* packed, int64_t head_dim,
                                                      int64_t pairs, const float* factors,
                                                      float* sum) {
  for (int64_t r = 0; r < rows; r += kRows) {
    __m512 acc[kRows][kVectorsNow];
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < kVectorsNow; ++j) {
        const int64_t row = std::min<int64_t>(r + i, rows - 1);
        acc[i][j] = _mm512_loadu_ps(sum + row * head_dim + j * kWords);
        if (factors != nullptr) acc[i][j] = _mm512_mul_ps(acc[i][j], _mm512_set1_ps(factors[row]));
      }
    multiply_tile(a + r * row_stride, row_stride, pair_stride, rows - r, packed, head_dim, pairs,
                  acc);
    for (int i = 0; i < kRows && r + i < rows; ++i)
      for (int j = 0; j < kVectorsNow; ++j)
        _mm512_storeu_ps(sum + (r + i) * head_dim + j * kWords, acc[i][j]);
  }
}

void accumulate(const uint16_t* a, int64_t row_stride, int64_t pair_stride, int64_t rows,
                const uint32_t* packed, int64_t head_dim, int64_t pairs, const float* factors,
                float* sum) {
  int64_t c = 0;
  for (; c + 4 * kWords <= head_dim; c += 4 * kWords)
    accumulate_columns<4>(a, row_stride, pair_stride, rows, packed + c, head_dim, pairs, factors,
                          sum + c);
  for (; c < head_dim; c += kWords)
    accumulate_columns<1>(a, row_stride, pair_stride, rows, packed + c, head_dim, pairs, factors,
                          sum + c);
}

// Lanes of vector j that row `row` of a block on the diagonal sees.
__mmask16 visible(bool diagonal, int64_t row, int j) {
  return diagonal ? first_lanes(std::max<int64_t>(0, row + 1 - j * kWords))
                  : static_cast<__mmask16>(0xffff);
}

// The forward pass of one block of queries of one head.
class QueryBlock {
 public:
  QueryBlock(const FlashAttention& a, const Document& d, int64_t head, int64_t block)
      : a_(a),
        first_(d.begin + block * kBlock),
        rows_(std::min<int64_t>(kBlock, d.length - block * kBlock)),
        head_(head),
        sum_(static_cast<size_t>(kBlock * a.head_dim), 0.0f) {
    std::fill_n(most_, kBlock, -INFINITY);
    std::fill_n(total_, kBlock, 0.0f);
  }

  void meet(const uint32_t* keys, const uint32_t* values, bool diagonal) {
    const __m512 scale = _mm512_set1_ps(a_.scale * kLog2e);
    score_tiles(head_of(a_.q, first_, head_, a_.head_dim), a_.q.stride, rows_, keys,
                a_.head_dim / 2, [&](int64_t r, const __m512(&acc)[kRows][kVectors]) {
                  for (int i = 0; i < kRows && r + i < rows_; ++i) {
                    __m512 s[kVectors];
                    for (int j = 0; j < kVectors; ++j)
                      s[j] = _mm512_mask_mul_ps(_mm512_set1_ps(-INFINITY),
                                                visible(diagonal, r + i, j), acc[i][j], scale);
                    softmax_row(r + i, s);
                  }
                });
    accumulate(probabilities_, kBlock, 2, rows_, values, a_.head_dim, kPairs, factor_, sum_.data());
  }

  void finish(HeadRows<uint16_t> out, float* lse) const {
    for (int64_t r = 0; r < rows_; ++r) {
      const __m512 inverse = _mm512_set1_ps(1.0f / total_[r]);
      uint16_t* to = out.data + (first_ + r) * out.stride + head_ * a_.head_dim;
      for (int64_t c = 0; c < a_.head_dim; c += kWords)
        store_bfloat16(_mm512_mul_ps(_mm512_loadu_ps(sum_.data() + r * a_.head_dim + c), inverse),
                       to + c, 0xffff);
      lse[head_ * a_.tokens() + first_ + r] = kLn2 * (most_[r] + std::log2(total_[r]));
    }
  }

 private:
  // Scores in base 2 -> probabilities relative to the greatest so far.
  void softmax_row(int64_t row, const __m512 (&s)[kVectors]) {
    __m512 top = s[0];
    for (int j = 1; j < kVectors; ++j) top = _mm512_max_ps(top, s[j]);
    const float before = most_[row], most = std::max(before, _mm512_reduce_max_ps(top));
    __m512 total = _mm512_setzero_ps();
    for (int j = 0; j < kVectors; ++j) {
      const __m512 p = exp2_of(_mm512_sub_ps(s[j], _mm512_set1_ps(most)));
      total = _mm512_add_ps(total, p);
      store_bfloat16(p, probabilities_ + row * kBlock + j * kWords, 0xffff);
    }
    factor_[row] = before == most ? 1.0f : std::exp2(before - most);  // 0 at first
    total_[row] = total_[row] * factor_[row] + _mm512_reduce_add_ps(total);
    most_[row] = most;
  }

  const FlashAttention& a_;
  int64_t first_, rows_, head_;
  std::vector<float> sum_;
  float most_[kBlock], total_[kBlock], factor_[kBlock];
  uint16_t probabilities_[kBlock * kBlock];
};

// Keys and values of every block and key-value head, packed: [kv_heads, blocks, block_words].
class PackedBlocks {
 public:
  // In `memory`, which grows as needed and outlives the blocks.
  PackedBlocks(const FlashAttention& a, int64_t num_blocks, std::vector<uint32_t>& memory)
      : words_(block_words(a)), num_blocks_(num_blocks) {
    const auto size = static_cast<size_t>(a.kv_heads * num_blocks * words_);
    if (memory.size() < size) memory.resize(size);
    data_ = memory.data();
  }
  uint32_t* at(int64_t kv_head, int64_t block) const {
    return data_ + (kv_head * num_blocks_ + block) * words_;
  }

 private:
  int64_t words_, num_blocks_;
  uint32_t* data_;
};

template <typename Pack>
void pack_all(const FlashAttention& a, const std::vector<Document>& documents, const Pack& pack) {
  struct Item {
    int64_t kv_head, document, block;
  };
  std::vector<Item> items;
  for (int64_t head = 0; head < a.kv_heads; ++head)
    for (size_t d = 0; d < documents.size(); ++d)
      for (int64_t b = 0; b < documents[d].num_blocks; ++b)
        items.push_back({head, static_cast<int64_t>(d), b});
  parallel_for(static_cast<int64_t>(items.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Item& item = items[static_cast<size_t>(i)];
      pack(item.kv_head, documents[static_cast<size_t>(item.document)], item.block);
    }
  });
}

// The backward pass of one head in one document.
class HeadBackward {
 public:
  HeadBackward(const FlashAttention& a, const Document& d, int64_t head,
               HeadRows<const uint16_t> out, HeadRows<const uint16_t> d_out, const float* lse)
      : a_(a),
        d_(d),
        head_(head),
        d_out_(d_out),
        dq_(static_cast<size_t>(d.num_blocks * kBlock * a.head_dim), 0.0f),
        lse_(static_cast<size_t>(d.length)),
        dot_(static_cast<size_t>(d.length)),
        queries_(static_cast<size_t>(d.num_blocks * block_words(a))),
        d_outs_(queries_.size()) {
    for (int64_t b = 0; b < d.num_blocks; ++b) {
      pack_block_rows(a, a.q, head, d, b, queries_.data() + b * block_words(a));
      pack_block_rows(a, d_out, head, d, b, d_outs_.data() + b * block_words(a));
    }
    for (int64_t t = 0; t < d.length; ++t) {
      const auto i = static_cast<size_t>(t);
      lse_[i] = lse[head * a.tokens() + d.begin + t] * kLog2e;
      const uint16_t* o = head_of(out, d.begin + t, head, a.head_dim);
      const uint16_t* g = head_of(d_out, d.begin + t, head, a.head_dim);
      __m512 sum = _mm512_setzero_ps();
      for (int64_t c = 0; c < a.head_dim; c += kWords)
        sum = _mm512_fmadd_ps(load_bfloat16(o + c, 0xffff), load_bfloat16(g + c, 0xffff), sum);
      dot_[i] = _mm512_reduce_add_ps(sum);
    }
  }

  // One block of keys against every block of queries that sees it. keys_t, values_t: packed over
  // head_dim; keys: over the tokens. dk, dv: [64, head_dim] fp32, zero at first.
  void meet(int64_t block, const uint32_t* keys_t, const uint32_t* values_t, const uint32_t* keys,
            float* dk, float* dv) {
    const int64_t count = std::min<int64_t>(kBlock, d_.length - block * kBlock);
    for (int64_t i = block; i < d_.num_blocks; ++i) {
      const int64_t rows = std::min<int64_t>(kBlock, d_.length - i * kBlock);
      scores(i, rows, i == block, keys_t);
      score_gradients(i, rows, values_t);
      weave(rows);
      const int64_t pairs = (rows + 1) / 2;
      accumulate(reinterpret_cast<const uint16_t*>(woven_p_), 2, 2 * kBlock, count,
                 d_outs_.data() + i * block_words(a_), a_.head_dim, pairs, nullptr, dv);
      accumulate(reinterpret_cast<const uint16_t*>(woven_ds_), 2, 2 * kBlock, count,
                 queries_.data() + i * block_words(a_), a_.head_dim, pairs, nullptr, dk);
      accumulate(ds_, kBlock, 2, rows, keys, a_.head_dim, kPairs, nullptr,
                 dq_.data() + i * kBlock * a_.head_dim);
    }
  }

  void store_dq(HeadRows<uint16_t> dq) const {
    for (int64_t t = 0; t < d_.length; ++t)
      for (int64_t c = 0; c < a_.head_dim; c += kWords)
        store_bfloat16(_mm512_loadu_ps(dq_.data() + t * a_.head_dim + c),
                       dq.data + (d_.begin + t) * dq.stride + head_ * a_.head_dim + c, 0xffff);
  }

 private:
  void scores(int64_t block, int64_t rows, bool diagonal, const uint32_t* keys_t) {
    const __m512 scale = _mm512_set1_ps(a_.scale * kLog2e);
    const int64_t first = block * kBlock;
    score_tiles(head_of(a_.q, d_.begin + first, head_, a_.head_dim), a_.q.stride, rows, keys_t,
                a_.head_dim / 2, [&](int64_t r, const __m512(&acc)[kRows][kVectors]) {
                  for (int i = 0; i < kRows && r + i < rows; ++i) {
                    const __m512 lse = _mm512_set1_ps(lse_[static_cast<size_t>(first + r + i)]);
                    for (int j = 0; j < kVectors; ++j)
                      _mm512_storeu_ps(
                          p_ + (r + i) * kBlock + j * kWords,
                          _mm512_maskz_mov_ps(visible(diagonal, r + i, j),
                                              exp2_of(_mm512_fmsub_ps(acc[i][j], scale, lse))));
                  }
                });
  }

  void score_gradients(int64_t block, int64_t rows, const uint32_t* values_t) {
    const __m512 scale = _mm512_set1_ps(a_.scale);
    const int64_t first = block * kBlock;
    score_tiles(head_of(d_out_, d_.begin + first, head_, a_.head_dim), d_out_.stride, rows,
                values_t, a_.head_dim / 2, [&](int64_t r, const __m512(&acc)[kRows][kVectors]) {
                  for (int i = 0; i < kRows && r + i < rows; ++i) {
                    const __m512 dot = _mm512_set1_ps(dot_[static_cast<size_t>(first + r + i)]);
                    for (int j = 0; j < kVectors; ++j) {
                      const int64_t at = (r + i) * kBlock + j * kWords;
                      const __m512 p = _mm512_mul_ps(_mm512_loadu_ps(p_ + at), scale);
                      store_bfloat16(_mm512_mul_ps(p, _mm512_sub_ps(acc[i][j], dot)), ds_ + at,
                                     0xffff);
                    }
                  }
                });
  }

  // Neighbouring rows of P and dS into words, for the products over queries.
  void weave(int64_t rows) {
    for (int64_t r = 0; r < rows; r += 2)
      for (int64_t c = 0; c < kBlock; c += kWords) {
        const bool both = r + 1 < rows;
        const __m512 low = _mm512_loadu_ps(p_ + r * kBlock + c);
        const __m512 high = both ? _mm512_loadu_ps(p_ + (r + 1) * kBlock + c) : _mm512_setzero_ps();
        _mm512_storeu_si512(woven_p_ + r / 2 * kBlock + c,
                            _mm512_or_si512(bits_of(low), _mm512_slli_epi32(bits_of(high), 16)));
        const __m512i l = _mm512_cvtepu16_epi32(
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(ds_ + r * kBlock + c)));
        const __m512i h = both ? _mm512_cvtepu16_epi32(_mm256_loadu_si256(
                                     reinterpret_cast<const __m256i*>(ds_ + (r + 1) * kBlock + c)))
                               : _mm512_setzero_si512();
        _mm512_storeu_si512(woven_ds_ + r / 2 * kBlock + c,
                            _mm512_or_si512(l, _mm512_slli_epi32(h, 16)));
      }
  }

  const FlashAttention& a_;
  const Document& d_;
  int64_t head_;
  HeadRows<const uint16_t> d_out_;
  std::vector<float> dq_, lse_, dot_;  // lse in base 2; dot: rows of out · d_out
  std::vector<uint32_t> queries_, d_outs_;
  float p_[kBlock * kBlock];
  uint16_t ds_[kBlock * kBlock];
  uint32_t woven_p_[kPairs * kBlock], woven_ds_[kPairs * kBlock];
};

// The first `count` numbers of a buffer that is kept for the next call.
float* zeroed(std::vector<float>& memory, int64_t count) {
  if (static_cast<int64_t>(memory.size()) < count) memory.resize(static_cast<size_t>(count));
  std::fill_n(memory.data(), count, 0.0f);
  return memory.data();
}

// Keys' or values' gradients [heads, tokens, head_dim] of the heads that share a key-value head are
// summed in order.
void reduce_groups(const FlashAttention& a, const float* parts, HeadRows<uint16_t> gradient) {
  const int64_t group = a.heads / a.kv_heads, tokens = a.tokens();
  parallel_for(tokens, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t kv = 0; kv < a.kv_heads; ++kv)
        for (int64_t c = 0; c < a.head_dim; c += kWords) {
          __m512 sum = _mm512_setzero_ps();
          for (int64_t g = 0; g < group; ++g)
            sum = _mm512_add_ps(
                sum, _mm512_loadu_ps(parts + ((kv * group + g) * tokens + t) * a.head_dim + c));
          store_bfloat16(sum, gradient.data + t * gradient.stride + kv * a.head_dim + c, 0xffff);
        }
  });
}

}  // namespace

bool supports_flash_avx512(int64_t head_dim) {
  return head_dim % kWords == 0 && machine_has_them();
}

void flash_forward(const FlashAttention& a, HeadRows<uint16_t> out, float* lse) {
  const std::vector<Document> documents = documents_of(a);
  thread_local std::vector<uint32_t> key_memory, value_memory;
  const PackedBlocks keys(a, count_blocks(documents), key_memory);
  const PackedBlocks values(a, count_blocks(documents), value_memory);
  pack_all(a, documents, [&](int64_t head, const Document& d, int64_t block) {
    pack_block_transposed(a, a.k, head, d, block, keys.at(head, d.first_block + block));
    pack_block_rows(a, a.v, head, d, block, values.at(head, d.first_block + block));
  });
  struct Item {
    const Document* document;
    int64_t head, block;
  };
  std::vector<Item> items;  // the longest rows first
  for (const Document& d : documents)
    for (int64_t block = d.num_blocks - 1; block >= 0; --block)
      for (int64_t head = 0; head < a.heads; ++head) items.push_back({&d, head, block});
  for_each_free(static_cast<int64_t>(items.size()), [&](int64_t i) {
    const Item& item = items[static_cast<size_t>(i)];
    const int64_t kv_head = item.head / (a.heads / a.kv_heads);
    QueryBlock queries(a, *item.document, item.head, item.block);
    for (int64_t j = 0; j <= item.block; ++j) {
      const int64_t block = item.document->first_block + j;
      queries.meet(keys.at(kv_head, block), values.at(kv_head, block), j == item.block);
    }
    queries.finish(out, lse);
  });
}

void flash_backward(const FlashAttention& a, HeadRows<const uint16_t> out,
                    HeadRows<const uint16_t> d_out, const float* lse, FlashGradients gradients) {
  const std::vector<Document> documents = documents_of(a);
  const int64_t num_blocks = count_blocks(documents);
  thread_local std::vector<uint32_t> memory[3];
  const PackedBlocks keys_t(a, num_blocks, memory[0]), values_t(a, num_blocks, memory[1]),
      keys(a, num_blocks, memory[2]);
  pack_all(a, documents, [&](int64_t head, const Document& d, int64_t block) {
    pack_block_transposed(a, a.k, head, d, block, keys_t.at(head, d.first_block + block));
    pack_block_transposed(a, a.v, head, d, block, values_t.at(head, d.first_block + block));
    pack_block_rows(a, a.k, head, d, block, keys.at(head, d.first_block + block));
  });
  const int64_t tokens = a.tokens(), dim = a.head_dim;
  thread_local std::vector<float> dk, dv;  // [heads, tokens, head_dim]
  float* const dk_parts = zeroed(dk, a.heads * tokens * dim);
  float* const dv_parts = zeroed(dv, a.heads * tokens * dim);
  const auto num_documents = static_cast<int64_t>(documents.size());
  for_each_free(num_documents * a.heads, [&](int64_t i) {
    const Document& d = documents[static_cast<size_t>(i / a.heads)];
    const int64_t head = i % a.heads, kv_head = head / (a.heads / a.kv_heads);
    HeadBackward backward(a, d, head, out, d_out, lse);
    for (int64_t j = 0; j < d.num_blocks; ++j) {
      const int64_t block = d.first_block + j;
      const int64_t at = (head * tokens + d.begin + j * kBlock) * dim;
      backward.meet(j, keys_t.at(kv_head, block), values_t.at(kv_head, block),
                    keys.at(kv_head, block), dk_parts + at, dv_parts + at);
    }
    backward.store_dq(gradients.q);
  });
  reduce_groups(a, dk_parts, gradients.k);
  reduce_groups(a, dv_parts, gradients.v);
}

}  // namespace qlora::model::cpu
