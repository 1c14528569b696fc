#include "model/norm.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/profile.h"
#include "lora/autograd_function.h"
#include "model/norm_kernels.h"
#include "quant/elements/element_tensor.h"

namespace qlora::model {
namespace {

using lora::AutogradContext;
using lora::Variable;
using lora::variable_list;

float* floats(const at::Tensor& t) { return t.defined() ? t.data_ptr<float>() : nullptr; }
void* untyped(const at::Tensor& t) { return t.defined() ? t.mutable_data_ptr() : nullptr; }

// A norm's parameters as the kernels take them.
struct Parameters {
  at::Tensor weight;  // the rule's offset is in it; ones for a norm without a weight
  at::Tensor bias;    // undefined for none
  at::Tensor weight_gradient, bias_gradient;
  double eps;
  bool layer;

  // A leaf where something is trained, so that the node is part of the graph even if nothing below
  // it is.
  std::optional<Variable> anchor() const {
    if (!weight_gradient.defined() && !bias_gradient.defined()) return std::nullopt;
    return weight.detach().requires_grad_(true);
  }
};

Parameters parameters_of(const lora::NormWeight& norm, const NormRule& rule, int64_t size,
                         const at::Tensor& beside, bool adapters_enabled) {
  const at::Tensor& weight = norm.value(adapters_enabled);
  const auto is_one = [](const at::Tensor& t) {
    return !t.defined() || (t.scalar_type() == at::kFloat && t.is_contiguous());
  };
  Parameters p{weight,
               norm.bias(adapters_enabled),
               norm.gradient(adapters_enabled),
               norm.bias_gradient(adapters_enabled),
               rule.eps,
               rule.kind == NormKind::kLayer};
  check(is_one(p.weight) && is_one(p.bias), "norm: weight and bias must be float32");
  check(p.layer || !p.bias.defined(), "norm: only a LayerNorm has a bias");
  at::NoGradGuard no_grad;
  if (!weight.defined())
    p.weight = at::ones(p.bias.defined() ? p.bias.sizes() : at::IntArrayRef{size},
                        beside.options().dtype(at::kFloat));
  else if (rule.offset != 0)
    p.weight = weight + rule.offset;
  check(!p.bias.defined() || p.bias.sizes() == p.weight.sizes(),
        "norm: weight and bias must be of one shape");
  return p;
}

// Without the type, which is that of the output.
NormShape shape_of(const at::Tensor& x, int64_t groups, const Parameters& p) {
  const int64_t size = x.size(1) / groups;
  const bool for_each_group = groups > 1 && p.weight.numel() == groups * size;
  check(for_each_group || p.weight.numel() == size,
        "norm: the weight must have {} numbers, or as many for each of {} groups; got {}", size,
        groups, p.weight.numel());
  return {{}, x.size(0), groups, size, for_each_group, p.layer};
}

NormInput input_of(const at::Tensor& x, bool is_stream) {
  return {x.const_data_ptr(), x.stride(0), is_stream};
}

struct Forward {
  at::Tensor sum, normed, mean, rstd;  // mean is undefined for RMSNorm
};

// Of the stream (x is the residual, and `delta` may be undefined) or of other rows.
Forward normed(const at::Tensor& x, const at::Tensor& delta, NormShape shape, const Parameters& p,
               bool is_stream, at::ScalarType compute) {
  const ProfileScope scope("norm");
  const auto float_options = x.options().dtype(at::kFloat);
  const at::Tensor d = delta.defined() ? delta.contiguous() : delta;
  Forward out{d.defined() ? at::empty(x.sizes(), float_options) : x,
              at::empty(x.sizes(), x.options().dtype(compute)), at::Tensor(),
              at::empty({shape.tokens, shape.groups}, float_options)};
  if (p.layer) out.mean = at::empty_like(out.rstd);
  shape.type = quant::element_type(out.normed, "norm");
  const Norm arguments{shape,
                       input_of(x, is_stream),
                       untyped(d),
                       d.defined() ? floats(out.sum) : nullptr,
                       floats(p.weight),
                       floats(p.bias),
                       static_cast<float>(p.eps),
                       untyped(out.normed),
                       floats(out.mean),
                       floats(out.rstd)};
  QLORA_DISPATCH(x.device(), cpu::norm(arguments),
                 cuda::norm(arguments, current_stream(x.device())));
  return out;
}

// What both nodes keep. The buffers that gradients go to are no saved variables: other nodes add to
// them before this one does, which autograd would take for a mistake.
void keep(AutogradContext* ctx, const at::Tensor& x, const Forward& forward, const Parameters& p,
          const NormShape& shape) {
  ctx->save_for_backward({x, forward.rstd, p.weight.detach(), forward.mean});
  if (p.weight_gradient.defined()) ctx->saved_data["weight_gradient"] = p.weight_gradient;
  if (p.bias_gradient.defined()) ctx->saved_data["bias_gradient"] = p.bias_gradient;
  ctx->saved_data["groups"] = shape.groups;
  ctx->saved_data["weight_for_each_group"] = shape.weight_for_each_group;
}

at::Tensor kept_tensor(AutogradContext* ctx, const char* name) {
  const auto found = ctx->saved_data.find(name);
  return found == ctx->saved_data.end() ? at::Tensor() : found->second.toTensor();
}

struct Kept {
  at::Tensor x, rstd, weight, mean;
  NormShape shape;
};

Kept kept(AutogradContext* ctx, const at::Tensor& dy) {
  const auto saved = ctx->get_saved_variables();
  const int64_t groups = ctx->saved_data["groups"].toInt();
  return {saved[0],
          saved[1],
          saved[2],
          saved[3],
          {quant::element_type(dy, "norm"), dy.size(0), groups, dy.size(1) / groups,
           ctx->saved_data["weight_for_each_group"].toBool(), saved[3].defined()}};
}

// Adds to the buffers of what is trained.
void add_parameter_gradients(AutogradContext* ctx, const Kept& k, const at::Tensor& dy,
                             bool is_stream) {
  const at::Tensor weight = kept_tensor(ctx, "weight_gradient"),
                   bias = kept_tensor(ctx, "bias_gradient");
  if (!weight.defined() && !bias.defined()) return;
  const NormWeightGradient sums{
      k.shape,     input_of(k.x, is_stream), floats(k.mean), floats(k.rstd),
      untyped(dy), floats(weight),           floats(bias)};
  QLORA_DISPATCH(dy.device(), cpu::norm_weight_gradient(sums),
                 cuda::norm_weight_gradient(sums, current_stream(dy.device())));
}

// d_x as x is, and where it is defined d_delta.
void differentiate(const Kept& k, const at::Tensor& dy, const at::Tensor& d_sum, bool is_stream,
                   const at::Tensor& d_x, const at::Tensor& d_delta) {
  const NormBackward arguments{k.shape,          input_of(k.x, is_stream),
                               floats(k.mean),   floats(k.rstd),
                               floats(k.weight), untyped(dy),
                               floats(d_sum),    untyped(d_x),
                               untyped(d_delta)};
  QLORA_DISPATCH(dy.device(), cpu::norm_backward(arguments),
                 cuda::norm_backward(arguments, current_stream(dy.device())));
}

struct AddNormNode : lora::Function<AddNormNode> {
  static variable_list forward(AutogradContext* ctx, const Variable& residual,
                               const std::optional<Variable>& delta,
                               const std::optional<Variable>& /*anchor*/,
                               const Parameters* parameters, int64_t compute) {
    const auto type = static_cast<at::ScalarType>(compute);
    const NormShape shape = shape_of(residual, 1, *parameters);
    Forward out = normed(residual, delta.value_or(at::Tensor()), shape, *parameters, true, type);
    keep(ctx, out.sum, out, *parameters, shape);
    ctx->saved_data["has_delta"] = delta.has_value();
    ctx->set_materialize_grads(false);  // of the last residual nobody takes the sum further
    return {out.sum, out.normed};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ProfileScope scope("norm backward");
    const at::Tensor d_sum = gradients[0].defined() ? gradients[0].contiguous() : at::Tensor();
    const at::Tensor dy = gradients[1].contiguous();
    const Kept k = kept(ctx, dy);
    const at::Tensor d_residual = at::empty_like(k.x);
    at::Tensor d_delta;
    if (ctx->saved_data["has_delta"].toBool()) d_delta = at::empty_like(dy);
    differentiate(k, dy, d_sum, true, d_residual, d_delta);
    add_parameter_gradients(ctx, k, dy, true);
    return {d_residual, d_delta, Variable(), Variable(), Variable()};
  }
};

struct NormRowsNode : lora::Function<NormRowsNode> {
  static Variable forward(AutogradContext* ctx, const Variable& x,
                          const std::optional<Variable>& /*anchor*/, const Parameters* parameters,
                          const NormShape* shape) {
    Forward out = normed(x, at::Tensor(), *shape, *parameters, false, x.scalar_type());
    keep(ctx, x, out, *parameters, *shape);
    return out.normed;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ProfileScope scope("norm backward");
    const at::Tensor dy = gradients[0].contiguous();
    const Kept k = kept(ctx, dy);
    const at::Tensor d_x = at::empty_like(dy);
    differentiate(k, dy, at::Tensor(), false, d_x, at::Tensor());
    add_parameter_gradients(ctx, k, dy, false);
    return {d_x, Variable(), Variable(), Variable()};
  }
};

}  // namespace

NormOutput add_norm(const at::Tensor& residual, const at::Tensor& delta,
                    const lora::NormWeight& weight, const NormRule& rule, at::ScalarType compute,
                    bool adapters_enabled) {
  check(residual.scalar_type() == at::kFloat && residual.is_contiguous(),
        "add_norm: the residual must be float32 and contiguous");
  if (rule.kind == NormKind::kNone) {
    const at::Tensor sum = delta.defined() ? residual + delta : residual;
    return {sum, sum.to(compute)};
  }
  const Parameters p = parameters_of(weight, rule, residual.size(1), residual, adapters_enabled);
  if (!at::GradMode::is_enabled()) {
    const Forward out = normed(residual, delta, shape_of(residual, 1, p), p, true, compute);
    return {out.sum, out.normed};
  }
  auto out =
      AddNormNode::apply(residual, delta.defined() ? std::optional<Variable>(delta) : std::nullopt,
                         p.anchor(), &p, static_cast<int64_t>(compute));
  return {out[0], out[1]};
}

at::Tensor norm_again(const at::Tensor& residual, const lora::NormWeight& weight,
                      const NormRule& rule, at::ScalarType compute, bool adapters_enabled) {
  at::NoGradGuard no_grad;
  return add_norm(residual, at::Tensor(), weight, rule, compute, adapters_enabled).normed;
}

at::Tensor norm_rows(const at::Tensor& x, int64_t groups, const lora::NormWeight& weight,
                     const NormRule& rule, bool adapters_enabled) {
  check(rule.kind != NormKind::kNone, "norm_rows: a kind of norm is wanted");
  check(x.dim() == 2 && x.stride(1) == 1 && groups > 0 && x.size(1) % groups == 0,
        "norm_rows: x must be [tokens, {} * size] with contiguous rows", groups);
  const Parameters p = parameters_of(weight, rule, x.size(1) / groups, x, adapters_enabled);
  const NormShape shape = shape_of(x, groups, p);
  if (!at::GradMode::is_enabled())
    return normed(x, at::Tensor(), shape, p, false, x.scalar_type()).normed;
  return NormRowsNode::apply(x, p.anchor(), &p, &shape);
}

}  // namespace qlora::model
