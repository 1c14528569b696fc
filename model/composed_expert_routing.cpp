#include "model/composed_expert_routing.h"

#include <ATen/ATen.h>

namespace qlora::model::composed {

at::Tensor choose_experts(const at::Tensor& logits, int64_t active) {
  const at::Tensor order = std::get<1>(at::sort(logits, /*stable=*/true, 1, /*descending=*/true));
  return order.narrow(1, 0, active).contiguous();
}

// One of the picks of all tokens at a time: what is made in between is as large as the sum, and the
// order is that of the CPU.
at::Tensor sum_rows(const at::Tensor& rows, const at::Tensor& row_of, const at::Tensor& weights) {
  at::Tensor sum = at::zeros({row_of.size(0), rows.size(1)}, rows.options().dtype(at::kFloat));
  for (int64_t j = 0; j < row_of.size(1); ++j) {
    const at::Tensor picked = rows.index_select(0, row_of.select(1, j));
    sum.add_(weights.defined() ? picked * weights.narrow(1, j, 1) : picked);
  }
  return sum;
}

void sum_rows_backward(const at::Tensor& d_sum, const at::Tensor& rows, const at::Tensor& row_of,
                       const at::Tensor& weights, const at::Tensor& d_rows,
                       const at::Tensor& d_weights) {
  for (int64_t j = 0; j < row_of.size(1); ++j) {
    const at::Tensor picks = row_of.select(1, j);
    d_rows.index_copy_(0, picks, (d_sum * weights.narrow(1, j, 1)).to(d_rows.scalar_type()));
    if (rows.defined()) d_weights.select(1, j).copy_((d_sum * rows.index_select(0, picks)).sum(1));
  }
}

}  // namespace qlora::model::composed
