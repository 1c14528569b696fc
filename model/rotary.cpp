#include "model/rotary.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/profile.h"
#include "base/upload.h"
#include "model/rotary_kernels.h"
#include "quant/elements/element_tensor.h"

namespace qlora::model {

Rotary::Rotary(RotarySpec spec, int64_t head_dim, at::Device device)
    : spec_(std::move(spec)), head_dim_(head_dim) {
  check(spec_.width > 0 && spec_.width % 2 == 0 && spec_.width <= head_dim,
        "Rotary: the width must be even and within the head's {} elements, got {}", head_dim,
        spec_.width);
  inverse_frequencies_ =
      at::tensor(inverse_frequencies(spec_.rope, spec_.width), at::kFloat).to(device);
}

at::Tensor Rotary::frequencies(const std::vector<int32_t>& positions,
                               const std::vector<int32_t>& cu_seqlens) const {
  if (!depends_on_length(spec_.rope) || positions.empty()) return inverse_frequencies_;
  const std::vector<int32_t> whole = {0, static_cast<int32_t>(positions.size())};
  const std::vector<int32_t>& bounds = cu_seqlens.empty() ? whole : cu_seqlens;
  const int64_t half = spec_.width / 2;
  const at::Tensor rows = at::empty({static_cast<int64_t>(positions.size()), half}, at::kFloat);
  for (size_t d = 0; d + 1 < bounds.size(); ++d) {
    if (bounds[d] == bounds[d + 1]) continue;
    const int64_t length =
        *std::max_element(positions.begin() + bounds[d], positions.begin() + bounds[d + 1]) + 1;
    rows.narrow(0, bounds[d], bounds[d + 1] - bounds[d])
        .copy_(at::tensor(inverse_frequencies(spec_.rope, spec_.width, length), at::kFloat));
  }
  return upload(rows, inverse_frequencies_.device());
}

RotaryTable Rotary::at_positions(const std::vector<int32_t>& positions,
                                 const std::vector<int32_t>& cu_seqlens) const {
  check(cu_seqlens.empty() || cu_seqlens.back() == static_cast<int64_t>(positions.size()),
        "Rotary: the documents must hold the {} positions", positions.size());
  at::NoGradGuard no_grad;
  const at::Tensor p =
      upload(at::tensor(positions, at::kInt).to(at::kFloat), inverse_frequencies_.device());
  const at::Tensor angles = p.unsqueeze(1) * frequencies(positions, cu_seqlens);
  RotaryTable table{at::cos(angles), at::sin(angles), spec_.pairs, head_dim_};
  if (const double factor = spec_.rope.attention_factor; factor != 1) {
    table.cos.mul_(factor);
    table.sin.mul_(factor);
  }
  return table;
}

namespace {

RotatedHeads heads_of(const at::Tensor& x, int64_t tokens, int64_t head_dim) {
  check(x.dim() == 2 && x.size(0) == tokens && x.stride(1) == 1 && x.size(1) % head_dim == 0,
        "rotate: x must be [tokens, heads * {}] with contiguous rows, and have a table row per "
        "token",
        head_dim);
  return {x.mutable_data_ptr(), x.stride(0), x.size(1) / head_dim};
}

void rotate_both(const at::Tensor& first, const at::Tensor* second, const RotaryTable& table,
                 bool inverse) {
  const ProfileScope scope("rotary");
  const int64_t tokens = table.cos.size(0), half = table.cos.size(1);
  const int64_t head_dim = table.head_dim > 0 ? table.head_dim : 2 * half;
  check(2 * half <= head_dim, "rotate: {} elements cannot turn in a head of {}", 2 * half,
        head_dim);
  const Rotate arguments{heads_of(first, tokens, head_dim),
                         second ? heads_of(*second, tokens, head_dim) : RotatedHeads(),
                         quant::element_type(first, "rotate"),
                         table.cos.const_data_ptr<float>(),
                         table.sin.const_data_ptr<float>(),
                         tokens,
                         head_dim,
                         half,
                         table.pairs,
                         inverse ? -1.0f : 1.0f};
  QLORA_DISPATCH(first.device(), cpu::rotate(arguments),
                 cuda::rotate(arguments, current_stream(first.device())));
}

}  // namespace

at::Tensor rotate(at::Tensor x, const RotaryTable& table, bool inverse) {
  rotate_both(x, nullptr, table, inverse);
  return x;
}

void rotate(const at::Tensor& q, const at::Tensor& k, const RotaryTable& table, bool inverse) {
  check(q.scalar_type() == k.scalar_type() && q.device() == k.device(),
        "rotate: q and k must be of one type and on one device");
  rotate_both(q, &k, table, inverse);
}

}  // namespace qlora::model
