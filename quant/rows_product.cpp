#include "quant/rows_product.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>

#include "base/element.h"
#include "base/error.h"
#include "base/parallel_for.h"
#include "base/profile.h"
#include "quant/frozen_weight.h"

namespace qlora::quant {
namespace {

constexpr int64_t kChunk = 64;                // rows of a weight whose sums are kept at once
constexpr int64_t kGrain = int64_t{1} << 15;  // elements a thread is worth waking for

template <typename T>
void store_sums(const float* sums, int64_t count, bool accumulate, T* y) {
  for (int64_t i = 0; i < count; ++i) store(accumulate ? load(y[i]) + sums[i] : sums[i], y[i]);
}

// Columns [column, column + count) of y (+)= sums.
void store_columns(const float* sums, int64_t column, int64_t count, bool accumulate,
                   at::ScalarType dtype, void* data, int64_t stride, int64_t tokens) {
  for (int64_t t = 0; t < tokens; ++t, sums += kChunk) {
    const int64_t first = t * stride + column;
    if (dtype == at::kFloat)
      store_sums(sums, count, accumulate, static_cast<float*>(data) + first);
    else if (dtype == at::kBFloat16)
      store_sums(sums, count, accumulate, static_cast<uint16_t*>(data) + first);
    else
      store_sums(sums, count, accumulate, static_cast<Float16*>(data) + first);
  }
}

struct Part {
  std::unique_ptr<RowsProduct> product;
  int64_t begin, end;  // its columns of y
};

}  // namespace

bool multiply_few_rows(const std::vector<const FrozenWeight*>& weights, const at::Tensor& x,
                       bool accumulate, at::Tensor& y, int64_t expert) {
  const int64_t tokens = x.size(0), in = x.size(1);
  if (tokens == 0 || tokens > kFewRows || !x.is_cpu()) return false;
  std::vector<Part> parts;
  int64_t out = 0;
  for (const FrozenWeight* weight : weights) {
    parts.push_back({weight->rows_product(x, expert), out, out + weight->out_features()});
    if (!parts.back().product) return false;
    out = parts.back().end;
  }
  check(y.size(0) == tokens && y.size(1) == out && y.stride(1) == 1 &&
            y.scalar_type() == x.scalar_type(),
        "multiply_few_rows: y must be [{}, {}] of x's dtype with contiguous rows", tokens, out);
  void* data = y.mutable_data_ptr();
  const int64_t stride = y.stride(0);
  const at::ScalarType dtype = y.scalar_type();
  const ProfileScope scope("few rows");
  parallel_for(out, std::max<int64_t>(1, kGrain / in), [&](int64_t begin, int64_t end) {
    float sums[kFewRows * kChunk];
    for (const Part& part : parts)
      for (int64_t row = std::max(begin, part.begin), last = std::min(end, part.end); row < last;
           row += kChunk) {
        const int64_t count = std::min(kChunk, last - row);
        part.product->sums(row - part.begin, row - part.begin + count, sums, kChunk);
        store_columns(sums, row, count, accumulate, dtype, data, stride, tokens);
      }
  });
  return true;
}

}  // namespace qlora::quant
