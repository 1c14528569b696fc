#include "quant/few_rows/rows_product.h"

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

// Where sums go: y (+)= scale sums.
struct Target {
  at::ScalarType dtype;
  void* data;
  int64_t stride, tokens;
  float scale;
  bool accumulate;

  Target(at::Tensor& y, float scale, bool accumulate)
      : dtype(y.scalar_type()),
        data(y.mutable_data_ptr()),
        stride(y.stride(0)),
        tokens(y.size(0)),
        scale(scale),
        accumulate(accumulate) {}

  template <typename T>
  void store_row(const float* sums, int64_t first, int64_t count) const {
    T* y = static_cast<T*>(data) + first;
    for (int64_t i = 0; i < count; ++i)
      store(accumulate ? load(y[i]) + scale * sums[i] : scale * sums[i], y[i]);
  }

  // Columns [column, column + count) of y; sums [tokens, kChunk].
  void store_columns(const float* sums, int64_t column, int64_t count) const {
    for (int64_t t = 0; t < tokens; ++t, sums += kChunk) {
      const int64_t first = t * stride + column;
      if (dtype == at::kFloat)
        store_row<float>(sums, first, count);
      else if (dtype == at::kBFloat16)
        store_row<uint16_t>(sums, first, count);
      else
        store_row<Float16>(sums, first, count);
    }
  }
};

struct Part {
  const RowsProduct* product;
  int64_t begin, end;  // its columns of y
};

void multiply_parts(const std::vector<Part>& parts, int64_t in, const Target& y) {
  const ProfileScope scope("few rows");
  parallel_for(parts.back().end, std::max<int64_t>(1, kGrain / in),
               [&](int64_t begin, int64_t end) {
                 float sums[kFewRows * kChunk];
                 for (const Part& part : parts)
                   for (int64_t row = std::max(begin, part.begin), last = std::min(end, part.end);
                        row < last; row += kChunk) {
                     const int64_t count = std::min(kChunk, last - row);
                     part.product->sums(row - part.begin, row - part.begin + count, sums, kChunk);
                     y.store_columns(sums, row, count);
                   }
               });
}

}  // namespace

void multiply_few_rows(const std::vector<const FrozenWeight*>& weights, const at::Tensor& x,
                       bool accumulate, at::Tensor& y, int64_t expert) {
  const int64_t tokens = x.size(0), in = x.size(1);
  check(0 < tokens && tokens <= kFewRows && x.is_cpu(),
        "multiply_few_rows: x must have 1 to {} rows on the CPU, got {} on {}", kFewRows, tokens,
        x.device().str());
  std::vector<std::unique_ptr<RowsProduct>> products;
  std::vector<Part> parts;
  int64_t out = 0;
  for (const FrozenWeight* weight : weights) {
    products.push_back(weight->rows_product(x, expert));
    parts.push_back({products.back().get(), out, out + weight->out_features()});
    out = parts.back().end;
  }
  check(y.size(0) == tokens && y.size(1) == out && y.stride(1) == 1 &&
            y.scalar_type() == x.scalar_type(),
        "multiply_few_rows: y must be [{}, {}] of x's dtype with contiguous rows", tokens, out);
  multiply_parts(parts, in, Target(y, 1.0f, accumulate));
}

void multiply_few_rows(const RowsProduct& product, int64_t in, float scale, bool accumulate,
                       at::Tensor& y) {
  check(y.size(0) <= kFewRows && y.stride(1) == 1,
        "multiply_few_rows: y must have at most {} rows, contiguous ones", kFewRows);
  multiply_parts({{&product, 0, y.size(1)}}, in, Target(y, scale, accumulate));
}

}  // namespace qlora::quant
