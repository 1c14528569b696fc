#include "lora/truncated_svd.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "base/seed.h"

namespace qlora::lora {
namespace {

constexpr int64_t kOversampling = 16;
constexpr int kPowerIterations = 4;

TruncatedSvd leading(const at::Tensor& matrix, int64_t rank) {
  const auto [u, s, vh] = at::linalg_svd(matrix, /*full_matrices=*/false);
  return {u.narrow(1, 0, rank), s.narrow(0, 0, rank), vh.narrow(0, 0, rank)};
}

at::Tensor orthonormal(const at::Tensor& columns) {
  return std::get<0>(at::linalg_qr(columns, "reduced"));
}

at::Tensor sketch(int64_t rows, int64_t columns, uint64_t key, at::Device device) {
  at::Tensor values = at::empty({rows, columns}, at::kFloat);
  auto* out = values.mutable_data_ptr<float>();
  for (int64_t i = 0; i < rows * columns; ++i) out[i] = normal(key, static_cast<uint64_t>(i));
  return values.to(device);
}

}  // namespace

TruncatedSvd truncated_svd(const at::Tensor& matrix, int64_t rank, bool exact, uint64_t key) {
  at::NoGradGuard no_grad;
  const int64_t least = std::min(matrix.size(0), matrix.size(1));
  check(matrix.scalar_type() == at::kFloat && rank >= 1 && rank <= least,
        "truncated_svd: the rank must be between 1 and {}, got {}", least, rank);
  const int64_t width = rank + kOversampling;
  if (exact || 2 * width >= least) return leading(matrix, rank);
  at::Tensor q = orthonormal(matrix.mm(sketch(matrix.size(1), width, key, matrix.device())));
  for (int i = 0; i < kPowerIterations; ++i)
    q = orthonormal(matrix.mm(orthonormal(matrix.t().mm(q))));
  const TruncatedSvd small = leading(q.t().mm(matrix), rank);
  if (!at::isfinite(small.s).all().item<bool>()) return leading(matrix, rank);
  return {q.mm(small.u), small.s, small.vh};
}

}  // namespace qlora::lora
