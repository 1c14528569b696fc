#include "model/norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "base/profile.h"
#include "model/element_pointer.h"
#include "model/norm_kernels.h"

namespace qlora::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

float* floats(const at::Tensor& t) { return t.defined() ? t.data_ptr<float>() : nullptr; }

struct Forward {
  at::Tensor residual, normed, rstd;
};

// Without `sums` the residual is not written again; there must be no delta then.
Forward forward_cpu(const at::Tensor& residual, const at::Tensor& delta, const at::Tensor& weight,
                    double eps, at::ScalarType compute, bool sums = true) {
  const int64_t tokens = residual.size(0), hidden = residual.size(1);
  Forward out{sums ? at::empty_like(residual) : at::Tensor(),
              at::empty(residual.sizes(), residual.options().dtype(compute)),
              at::empty({tokens}, residual.options())};
  const at::Tensor d = delta.defined() ? delta.contiguous() : delta;
  with_elements(out.normed, [&](auto* normed) {
    cpu::add_rms_norm(floats(residual), elements<ElementOf<decltype(normed)>>(d), floats(weight),
                      static_cast<float>(eps), tokens, hidden, floats(out.residual), normed,
                      floats(out.rstd));
  });
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

struct AddRmsNormNode : torch::autograd::Function<AddRmsNormNode> {
  static variable_list forward(AutogradContext* ctx, const Variable& residual,
                               const std::optional<Variable>& delta, const Variable& weight,
                               const std::optional<Variable>& weight_gradient, double eps,
                               int64_t compute) {
    const ProfileScope scope("norm");
    Forward out = forward_cpu(residual, delta.value_or(at::Tensor()), weight, eps,
                              static_cast<at::ScalarType>(compute));
    ctx->save_for_backward({out.residual, out.rstd, weight.detach()});
    keep_gradient(ctx, weight_gradient.value_or(at::Tensor()));
    ctx->saved_data["has_delta"] = delta.has_value();
    return {out.residual, out.normed};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ProfileScope scope("norm backward");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &rstd = saved[1], &weight = saved[2];
    const int64_t tokens = x.size(0), hidden = x.size(1);
    at::Tensor dx = gradients[0].defined() ? gradients[0].clone() : at::zeros_like(x);
    const at::Tensor dy = gradients[1].contiguous();
    at::Tensor d_delta;
    if (ctx->saved_data["has_delta"].toBool()) d_delta = at::empty_like(dy);
    with_elements(dy, [&](auto* d_normed) {
      cpu::add_rms_norm_backward(floats(x), floats(rstd), floats(weight), d_normed, tokens, hidden,
                                 floats(dx), elements<ElementOf<decltype(d_normed)>>(d_delta));
      if (const at::Tensor weight_gradient = kept_gradient(ctx); weight_gradient.defined())
        cpu::rms_norm_weight_gradient(floats(x), floats(rstd), d_normed, tokens, hidden,
                                      floats(weight_gradient));
    });
    return {dx, d_delta, Variable(), Variable(), Variable(), Variable()};
  }
};

// x · weight with a trained weight, of stock operations.
struct TimesWeightNode : torch::autograd::Function<TimesWeightNode> {
  static Variable forward(AutogradContext* ctx, const Variable& x, const Variable& weight,
                          const Variable& weight_gradient) {
    ctx->save_for_backward({x, weight.detach()});
    keep_gradient(ctx, weight_gradient);
    return x * weight;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    kept_gradient(ctx).add_((gradients[0] * saved[0]).sum(0));
    return {gradients[0] * saved[1], Variable(), Variable()};
  }
};

// Stock ATen operations with autograd: the path of devices without a kernel of their own.
NormOutput composed(const at::Tensor& residual, const at::Tensor& delta, const at::Tensor& weight,
                    double eps, at::ScalarType compute, const at::Tensor& weight_gradient) {
  const at::Tensor r = delta.defined() ? residual + delta.to(at::kFloat) : residual;
  const at::Tensor scale = at::rsqrt(r.square().mean(-1, true) + eps);
  if (weight_gradient.defined() && at::GradMode::is_enabled())
    return {r, TimesWeightNode::apply(r * scale, entering(weight, weight_gradient), weight_gradient)
                   .to(compute)};
  return {r, (r * scale * weight).to(compute)};
}

}  // namespace

NormOutput add_rms_norm(const at::Tensor& residual, const at::Tensor& delta,
                        const at::Tensor& weight, double eps, at::ScalarType compute,
                        const at::Tensor& weight_gradient) {
  check(residual.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat,
        "add_rms_norm: residual and weight must be float32");
  if (!residual.is_cpu()) return composed(residual, delta, weight, eps, compute, weight_gradient);
  if (!at::GradMode::is_enabled()) {
    const bool sums = delta.defined();
    Forward out = forward_cpu(residual, delta, weight, eps, compute, sums);
    return {sums ? out.residual : residual, out.normed};
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
  if (!residual.is_cpu())
    return composed(residual, at::Tensor(), weight, eps, compute, at::Tensor()).normed;
  return forward_cpu(residual, at::Tensor(), weight, eps, compute, false).normed;
}

}  // namespace qlora::model
