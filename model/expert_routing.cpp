#include "model/expert_routing.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <numeric>

#include "base/error.h"
#include "base/profile.h"
#include "base/upload.h"
#include "lora/autograd_function.h"
#include "model/composed_expert_routing.h"
#include "model/expert_routing_kernels.h"
#include "quant/elements/element_tensor.h"

namespace qlora::model {
namespace {

using lora::AutogradContext;
using lora::Variable;
using lora::variable_list;

// int64 [tokens, active], the largest logit first.
at::Tensor chosen_experts(const at::Tensor& logits, int64_t active) {
  if (logits.is_cuda()) return composed::choose_experts(logits, active);
  at::Tensor chosen = at::empty({logits.size(0), active}, at::kLong);
  cpu::choose_experts({logits.const_data_ptr<float>(), chosen.mutable_data_ptr<int64_t>(),
                       logits.size(0), logits.size(1), active});
  return chosen;
}

// Counted and numbered on the host, which has to know rows_of_expert.
Routed rows_of(const at::Tensor& chosen, int64_t experts) {
  const at::Tensor on_host = chosen.cpu();
  const int64_t* expert = on_host.const_data_ptr<int64_t>();
  const int64_t rows = on_host.numel(), active = on_host.size(1);
  std::vector<int64_t> count(experts);
  for (int64_t pick = 0; pick < rows; ++pick) ++count[expert[pick]];
  std::vector<int64_t> next(experts);  // each expert's next row
  std::exclusive_scan(count.begin(), count.end(), next.begin(), int64_t{0});
  at::Tensor token_of_row = at::empty({rows}, at::kLong), row_of = at::empty_like(on_host);
  int64_t* token = token_of_row.mutable_data_ptr<int64_t>();
  int64_t* row = row_of.mutable_data_ptr<int64_t>();
  for (int64_t pick = 0; pick < rows; ++pick) {
    row[pick] = next[expert[pick]]++;
    token[row[pick]] = pick / active;
  }
  return {at::Tensor(), std::move(count), upload(token_of_row, chosen.device()),
          upload(row_of, chosen.device())};
}

RowsOfTokens shape_of(const at::Tensor& rows, const at::Tensor& row_of) {
  return {row_of.const_data_ptr<int64_t>(), quant::element_type(rows, "expert rows"),
          row_of.size(0), row_of.size(1), rows.size(1)};
}

// With weights fp32, else as the rows.
at::Tensor summed(const at::Tensor& rows, const at::Tensor& row_of, const at::Tensor& weights) {
  const at::ScalarType type = weights.defined() ? at::kFloat : rows.scalar_type();
  if (rows.is_cuda()) return composed::sum_rows(rows, row_of, weights).to(type);
  at::Tensor sum = at::empty({row_of.size(0), rows.size(1)}, rows.options().dtype(type));
  cpu::sum_rows({shape_of(rows, row_of), rows.const_data_ptr(),
                 weights.defined() ? weights.const_data_ptr<float>() : nullptr,
                 sum.mutable_data_ptr()});
  return sum;
}

struct ToExpertsNode : lora::Function<ToExpertsNode> {
  static Variable forward(AutogradContext* ctx, const Variable& x, const Routed* routed) {
    ctx->save_for_backward({routed->row_of});
    return x.index_select(0, routed->token_of_row);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ProfileScope scope("to experts backward");
    const at::Tensor row_of = ctx->get_saved_variables()[0];
    return {summed(gradients[0].contiguous(), row_of, at::Tensor()), Variable()};
  }
};

struct FromExpertsNode : lora::Function<FromExpertsNode> {
  static Variable forward(AutogradContext* ctx, const Variable& y, const Variable& weights,
                          const Routed* routed) {
    ctx->save_for_backward({weights.requires_grad() ? y : at::Tensor(), weights, routed->row_of});
    ctx->saved_data["type"] = static_cast<int64_t>(y.scalar_type());
    return summed(y, routed->row_of, weights);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ProfileScope scope("from experts backward");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &y = saved[0], &weights = saved[1], &row_of = saved[2];
    const at::Tensor d_sum = gradients[0].contiguous();
    const auto type = static_cast<at::ScalarType>(ctx->saved_data["type"].toInt());
    at::Tensor d_y = at::empty({row_of.numel(), d_sum.size(1)}, d_sum.options().dtype(type));
    at::Tensor d_weights = y.defined() ? at::empty_like(weights) : at::Tensor();
    if (d_sum.is_cuda())
      composed::sum_rows_backward(d_sum, y, row_of, weights, d_y, d_weights);
    else
      cpu::sum_rows_backward({shape_of(d_y, row_of), y.defined() ? y.const_data_ptr() : nullptr,
                              weights.const_data_ptr<float>(), d_sum.const_data_ptr<float>(),
                              d_y.mutable_data_ptr(),
                              y.defined() ? d_weights.mutable_data_ptr<float>() : nullptr});
    return {d_y, d_weights, Variable()};
  }
};

}  // namespace

Routed route(const at::Tensor& logits, const RoutingRule& rule) {
  const ProfileScope scope("routing");
  check(rule.active >= 1 && rule.active <= rule.experts,
        "route: the active experts must be 1 to {}, as many as there are, got {}", rule.experts,
        rule.active);
  check(logits.dim() == 2 && logits.size(1) == rule.experts &&
            at::isFloatingType(logits.scalar_type()),
        "route: logits must be [tokens, {}] of a floating type, got {} of {}", rule.experts,
        fmt::join(logits.sizes(), " x "), c10::toString(logits.scalar_type()));
  const at::Tensor wide = logits.to(at::kFloat);
  const at::Tensor chosen = chosen_experts(wide.detach().contiguous(), rule.active);
  Routed routed = rows_of(chosen, rule.experts);
  // Renormalised, what the others have in the denominator cancels.
  routed.weights = rule.renormalise ? at::softmax(wide.gather(1, chosen), 1)
                                    : at::softmax(wide, 1).gather(1, chosen);
  if (!rule.weights_in_fp32)
    routed.weights = routed.weights.to(logits.scalar_type()).to(at::kFloat);
  return routed;
}

at::Tensor to_experts(const at::Tensor& x, const Routed& routed) {
  const ProfileScope scope("to experts");
  check(x.dim() == 2 && x.size(0) == routed.row_of.size(0),
        "to_experts: x must be [{} tokens, hidden], got {}", routed.row_of.size(0),
        fmt::join(x.sizes(), " x "));
  quant::element_type(x, "to_experts");
  if (!at::GradMode::is_enabled()) return x.index_select(0, routed.token_of_row);
  return ToExpertsNode::apply(x, &routed);
}

at::Tensor from_experts(const at::Tensor& y, const Routed& routed) {
  const ProfileScope scope("from experts");
  check(y.dim() == 2 && y.size(0) == routed.row_of.numel() && y.is_contiguous(),
        "from_experts: y must be [{} rows, hidden] and contiguous, got {}", routed.row_of.numel(),
        fmt::join(y.sizes(), " x "));
  if (!at::GradMode::is_enabled()) return summed(y, routed.row_of, routed.weights);
  return FromExpertsNode::apply(y, routed.weights, &routed);
}

}  // namespace qlora::model
