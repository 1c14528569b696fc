#include "model/norm.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/profile.h"
#include "lora/autograd_function.h"
#include "model/norm_kernels.h"
#include "quant/element_tensor.h"

namespace qlora::model {
namespace {

using lora::AutogradContext;
using lora::Variable;
using lora::variable_list;

float* floats(const at::Tensor& t) { return t.defined() ? t.data_ptr<float>() : nullptr; }

struct Forward {
  at::Tensor residual, normed, rstd;
};

void* untyped(const at::Tensor& t) { return t.defined() ? t.mutable_data_ptr() : nullptr; }

// Without a delta the residual is not written again.
Forward normed(const at::Tensor& residual, const at::Tensor& delta, const at::Tensor& weight,
               double eps, at::ScalarType compute) {
  const ProfileScope scope("norm");
  const int64_t tokens = residual.size(0), hidden = residual.size(1);
  Forward out{delta.defined() ? at::empty_like(residual) : residual,
              at::empty(residual.sizes(), residual.options().dtype(compute)),
              at::empty({tokens}, residual.options())};
  const at::Tensor d = delta.defined() ? delta.contiguous() : delta;
  const AddRmsNorm arguments{floats(residual),
                             untyped(d),
                             floats(weight),
                             static_cast<float>(eps),
                             delta.defined() ? floats(out.residual) : nullptr,
                             untyped(out.normed),
                             floats(out.rstd),
                             quant::element_type(out.normed, "add_rms_norm"),
                             tokens,
                             hidden};
  QLORA_DISPATCH(residual.device(), cpu::add_rms_norm(arguments),
                 cuda::add_rms_norm(arguments, current_stream(residual.device())));
  return out;
}

// The weight as it enters a node: a leaf where it is trained, so that the node is part of the graph
// even if nothing below it is.
Variable entering(const at::Tensor& weight, const at::Tensor& weight_gradient) {
  return weight_gradient.defined() ? weight.detach().requires_grad_(true) : weight;
}

// The buffer that a weight's gradient goes to. It is no saved variable: other nodes add to it
// before this one does, which autograd would take for a mistake.
void keep_gradient(AutogradContext* ctx, const at::Tensor& buffer) {
  if (buffer.defined()) ctx->saved_data["weight_gradient"] = buffer;
}

at::Tensor kept_gradient(AutogradContext* ctx) {
  const auto found = ctx->saved_data.find("weight_gradient");
  return found == ctx->saved_data.end() ? at::Tensor() : found->second.toTensor();
}

struct AddRmsNormNode : lora::Function<AddRmsNormNode> {
  static variable_list forward(AutogradContext* ctx, const Variable& residual,
                               const std::optional<Variable>& delta, const Variable& weight,
                               const std::optional<Variable>& weight_gradient, double eps,
                               int64_t compute) {
    Forward out = normed(residual, delta.value_or(at::Tensor()), weight, eps,
                         static_cast<at::ScalarType>(compute));
    ctx->save_for_backward({out.residual, out.rstd, weight.detach()});
    keep_gradient(ctx, weight_gradient.value_or(at::Tensor()));
    ctx->saved_data["has_delta"] = delta.has_value();
    ctx->set_materialize_grads(false);  // of the last residual nobody takes the sum further
    return {out.residual, out.normed};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ProfileScope scope("norm backward");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &rstd = saved[1], &weight = saved[2];
    const int64_t tokens = x.size(0), hidden = x.size(1);
    const at::Tensor d_out = gradients[0].defined() ? gradients[0].contiguous() : at::Tensor();
    const at::Tensor dx = at::empty_like(x);
    const at::Tensor dy = gradients[1].contiguous();
    at::Tensor d_delta;
    if (ctx->saved_data["has_delta"].toBool()) d_delta = at::empty_like(dy);
    const auto type = quant::element_type(dy, "add_rms_norm");
    const AddRmsNormBackward arguments{floats(x),     floats(rstd), floats(weight),   untyped(dy),
                                       floats(d_out), floats(dx),   untyped(d_delta), type,
                                       tokens,        hidden};
    QLORA_DISPATCH(x.device(), cpu::add_rms_norm_backward(arguments),
                   cuda::add_rms_norm_backward(arguments, current_stream(x.device())));
    if (const at::Tensor weight_gradient = kept_gradient(ctx); weight_gradient.defined()) {
      const RmsNormWeightGradient sums{
          floats(x), floats(rstd), untyped(dy), floats(weight_gradient), type, tokens, hidden};
      QLORA_DISPATCH(x.device(), cpu::rms_norm_weight_gradient(sums),
                     cuda::rms_norm_weight_gradient(sums, current_stream(x.device())));
    }
    return {dx, d_delta, Variable(), Variable(), Variable(), Variable()};
  }
};

}  // namespace

NormOutput add_rms_norm(const at::Tensor& residual, const at::Tensor& delta,
                        const at::Tensor& weight, double eps, at::ScalarType compute,
                        const at::Tensor& weight_gradient) {
  check(residual.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat,
        "add_rms_norm: residual and weight must be float32");
  if (!at::GradMode::is_enabled()) {
    const Forward out = normed(residual, delta, weight, eps, compute);
    return {out.residual, out.normed};
  }
  const auto optional = [](const at::Tensor& t) {
    return t.defined() ? std::optional<Variable>(t) : std::nullopt;
  };
  auto out = AddRmsNormNode::apply(residual, optional(delta), entering(weight, weight_gradient),
                                   optional(weight_gradient), eps, static_cast<int64_t>(compute));
  return {out[0], out[1]};
}

at::Tensor rms_norm(const at::Tensor& residual, const at::Tensor& weight, double eps,
                    at::ScalarType compute) {
  at::NoGradGuard no_grad;
  return normed(residual, at::Tensor(), weight, eps, compute).normed;
}

}  // namespace qlora::model
