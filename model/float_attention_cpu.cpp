#include "model/float_attention_kernels.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>
#include <vector>

#include "base/instruction_set.h"
#include "base/parallel_for.h"

namespace qlora::model::cpu {
namespace {

constexpr int64_t kBlock = 64;    // queries and keys of a block
constexpr float kLeast = -1e30f;  // below all scores
constexpr float kLog2e = 1.44269504088896341f, kLn2 = 0.693147180559945309f;

int64_t blocks_of(int64_t count) { return (count + kBlock - 1) / kBlock; }

// The backward pass as all threads see it.
struct Backward {
  const FloatAttention& a;
  ConstFloatRows d_out;
  FloatAttentionGradients gradients;
  const float* lse;                       // [heads, tokens]
  const float* dot;                       // [heads, tokens]: out · d_out
  std::vector<std::atomic<int32_t>> met;  // by head and block of queries: blocks of keys it has met
};

}  // namespace
}  // namespace qlora::model::cpu

#define QLORA_SIMD_LOOPS "model/float_attention_loops.h"
#include "base/simd/for_each.h"

namespace qlora::model::cpu {
namespace {

// Calls visit(worker, item) for [0, count) on all threads, whichever is free next, in order; each
// thread has a worker of its own.
template <typename Worker, typename Shared, typename Visit>
void for_each_free(int64_t count, Shared& shared, const Visit& visit) {
  std::atomic<int64_t> next{0};
  parallel_for(std::min<int64_t>(count, num_threads()), 1, [&](int64_t, int64_t) {
    Worker worker(shared);
    for (int64_t i = next++; i < count; i = next++) visit(worker, i);
  });
}

// The longest first, so that threads which take one after the other end together.
std::vector<FloatDocument> by_length(const FloatAttention& a) {
  std::vector<FloatDocument> all = a.documents;
  std::ranges::stable_sort(all, std::ranges::greater{}, &FloatDocument::queries);
  return all;
}

template <typename Queries>
void forward(const FloatAttention& a, FloatRows out, float* lse) {
  struct Item {
    FloatDocument document;
    int64_t head, block;
  };
  std::vector<Item> items;
  for (const FloatDocument& d : by_length(a))
    for (int64_t block = blocks_of(d.queries) - 1; block >= 0; --block)
      for (int64_t head = 0; head < a.heads; ++head) items.push_back({d, head, block});
  for_each_free<Queries>(static_cast<int64_t>(items.size()), a, [&](Queries& queries, int64_t i) {
    const Item& item = items[static_cast<size_t>(i)];
    queries.attend(item.document, item.head, item.block, out, lse);
  });
}

template <typename Keys>
void backward(Backward& b) {
  struct Item {
    FloatDocument document;
    int64_t kv_head, block, first_block;  // of the document's queries among all blocks
  };
  std::vector<Item> items;  // a thread waits only for what another one has begun
  int64_t first = 0;
  for (const FloatDocument& d : by_length(b.a)) {
    for (int64_t block = 0; block < blocks_of(d.keys); ++block)
      for (int64_t head = 0; head < b.a.kv_heads; ++head) items.push_back({d, head, block, first});
    first += blocks_of(d.queries);
  }
  b.met = std::vector<std::atomic<int32_t>>(static_cast<size_t>(b.a.heads * first));
  for_each_free<Keys>(static_cast<int64_t>(items.size()), b, [&](Keys& keys, int64_t i) {
    const Item& item = items[static_cast<size_t>(i)];
    keys.differentiate(item.document, item.kv_head, item.block, item.first_block, first);
  });
}

}  // namespace

void float_attention(const FloatAttention& a, FloatRows out, float* lse) {
#ifdef __x86_64__
  if (has_avx512()) return forward<simd::avx512::QueryBlock>(a, out, lse);
  if (has_avx2()) return forward<simd::avx2::QueryBlock>(a, out, lse);
#endif
  forward<simd::baseline::QueryBlock>(a, out, lse);
}

void float_attention_backward(const FloatAttention& a, ConstFloatRows out, ConstFloatRows d_out,
                              const float* lse, FloatAttentionGradients gradients) {
  std::vector<float> dot(static_cast<size_t>(a.heads * a.tokens));
  parallel_for(a.tokens, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t head = 0; head < a.heads; ++head) {
        const float *o = head_of(out, t, head, a.head_dim),
                    *g = head_of(d_out, t, head, a.head_dim);
        float sum = 0;
        for (int64_t c = 0; c < a.head_dim; ++c) sum += o[c] * g[c];
        dot[static_cast<size_t>(head * a.tokens + t)] = sum;
      }
  });
  Backward b{a, d_out, gradients, lse, dot.data(), {}};
#ifdef __x86_64__
  if (has_avx512()) return backward<simd::avx512::KeyBlock>(b);
  if (has_avx2()) return backward<simd::avx2::KeyBlock>(b);
#endif
  backward<simd::baseline::KeyBlock>(b);
}

}  // namespace qlora::model::cpu
