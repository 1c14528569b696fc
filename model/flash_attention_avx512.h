// What the forward and the backward pass of attention on AVX-512 BF16 share: documents in blocks of
// 64 tokens, the exponential, and two rows of fp32 turned into words of bf16 pairs. To be included
// where base/bfloat16_tile_avx512.h is, and after it.
//
// Each loop of products is a function that is not inlined: next to others it runs out of registers
// (the backward pass took 1.18 times as long).
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "base/parallel_for.h"
#include "model/flash_attention_kernels.h"

namespace qlora::model::cpu {
using namespace avx512;

constexpr float kLeast = -1e30f;            // below all scores
constexpr int kBlock = 64;                  // queries and keys of a block
constexpr int kPairs = kBlock / 2;          // of neighbouring tokens in it
constexpr int kSegments = kBlock / kWords;  // of 16 tokens; a block on the diagonal is met by them

// Rows of a register tile by its vectors: 12 products or more in flight hide their latency.
template <int kVectors>
constexpr int kTileRows = kVectors == 1   ? 16
                          : kVectors == 4 ? 4
                                          : 8;

// Calls visit with `count`, 1 to 4, as a constant.
template <typename Visit>
[[gnu::always_inline]] inline void with_vectors(int64_t count, const Visit& visit) {
  switch (count) {
    case 1:
      return visit(std::integral_constant<int, 1>());
    case 2:
      return visit(std::integral_constant<int, 2>());
    case 3:
      return visit(std::integral_constant<int, 3>());
    default:
      return visit(std::integral_constant<int, 4>());
  }
}

// One document, in blocks of queries, which are its tokens, and blocks of keys.
struct Document {
  int64_t begin, length, num_blocks;
  int64_t first_block;  // of all documents' blocks of queries
  int64_t key_begin, num_keys, num_key_blocks;
  int64_t first_pair;  // of all documents' pairs of neighbouring keys

  // Queries and keys of a block, and the first of them.
  int64_t rows(int64_t block) const { return std::min<int64_t>(kBlock, length - block * kBlock); }
  int64_t token(int64_t block) const { return begin + block * kBlock; }
  int64_t keys(int64_t block) const { return std::min<int64_t>(kBlock, num_keys - block * kBlock); }
  int64_t key(int64_t block) const { return key_begin + block * kBlock; }
};

// tanh(x) = 1 - 2 / (e^2x + 1), to 2e-6.
[[gnu::always_inline]] inline __m512 tanh_of(__m512 x) {
  const __m512 power = exp2_of(_mm512_mul_ps(x, _mm512_set1_ps(2.0f * kLog2e)));
  return _mm512_sub_ps(
      _mm512_set1_ps(1.0f),
      _mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(power, _mm512_set1_ps(1.0f))));
}

// The lanes below `count`, of which there may be none or more than there are lanes.
[[gnu::always_inline]] inline __mmask16 lanes_below(int64_t count) {
  return count <= 0 ? static_cast<__mmask16>(0) : first_lanes(count);
}

// The longest first, so that threads which take one block after the other end together.
inline std::vector<Document> documents_of(const FlashAttention& a) {
  std::vector<Document> all;
  const auto blocks_of = [](int64_t count) { return (count + kBlock - 1) / kBlock; };
  int64_t block = 0, pair = 0;
  for (size_t d = 0; d + 1 < a.cu_seqlens.size(); ++d) {
    const int64_t begin = a.cu_seqlens[d], length = a.cu_seqlens[d + 1] - begin;
    const int64_t key = a.key_seqlens[d], keys = a.key_seqlens[d + 1] - key;
    all.push_back({begin, length, blocks_of(length), block, key, keys, blocks_of(keys), pair});
    block += all.back().num_blocks;
    pair += (keys + 1) / 2;
  }
  std::ranges::stable_sort(all, std::ranges::greater{}, &Document::length);
  return all;
}

// Calls visit(worker, item) for [0, count) on all threads, whichever is free next, in order; each
// thread has a worker of its own.
template <typename MakeWorker, typename Visit>
void for_each_free(int64_t count, const MakeWorker& make_worker, const Visit& visit) {
  std::atomic<int64_t> next{0};
  parallel_for(std::min<int64_t>(count, num_threads()), 1, [&](int64_t, int64_t) {
    auto worker = make_worker();
    for (int64_t i = next++; i < count; i = next++) visit(worker, i);
  });
}

// At least `count` elements of a buffer that is kept for the next call.
template <typename T>
T* kept_buffer(std::vector<T>& memory, int64_t count) {
  if (static_cast<int64_t>(memory.size()) < count) memory.resize(static_cast<size_t>(count));
  return memory.data();
}

}  // namespace qlora::model::cpu
