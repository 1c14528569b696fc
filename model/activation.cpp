#include "model/activation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/profile.h"
#include "lora/autograd_function.h"
#include "lora/columns.h"
#include "model/activation_kernels.h"
#include "quant/elements/element_tensor.h"

namespace qlora::model {
namespace {

using lora::AutogradContext;
using lora::Variable;
using lora::variable_list;

ConstRows rows_of(const at::Tensor& t) {
  return t.defined() ? ConstRows{t.const_data_ptr(), t.stride(0)} : ConstRows{};
}
MutableRows mutable_rows_of(const at::Tensor& t) {
  return t.defined() ? MutableRows{t.mutable_data_ptr(), t.stride(0)} : MutableRows{};
}

ActivationKernel kernel_of(const ActivationRule& rule, bool gated) {
  return {rule.kind, gated, static_cast<float>(rule.limit), static_cast<float>(rule.alpha)};
}

at::Tensor activated(const at::Tensor& gate, const at::Tensor& up, const ActivationRule& rule) {
  const ProfileScope scope("activation");
  at::Tensor out = at::empty(gate.sizes(), gate.options());
  const Activate arguments{
      kernel_of(rule, up.defined()),         rows_of(gate), rows_of(up), mutable_rows_of(out),
      quant::element_type(gate, "activate"), gate.size(0),  gate.size(1)};
  QLORA_DISPATCH(gate.device(), cpu::activate(arguments),
                 cuda::activate(arguments, current_stream(gate.device())));
  return out;
}

void keep(AutogradContext* ctx, const KeptGates& kept, const ActivationRule& rule) {
  ctx->save_for_backward({kept.gate, kept.up});
  ctx->saved_data["kind"] = static_cast<int64_t>(rule.kind);
  ctx->saved_data["limit"] = rule.limit;
  ctx->saved_data["alpha"] = rule.alpha;
}

// By what keep() kept.
at::Tensor gradients_of(AutogradContext* ctx, const at::Tensor& d_out) {
  const auto saved = ctx->get_saved_variables();
  return activation_gradients(
      {saved[0], saved[1]}, d_out,
      {static_cast<Activation>(ctx->saved_data["kind"].toInt()),
       ctx->saved_data["limit"].toDouble(), ctx->saved_data["alpha"].toDouble()});
}

struct ActivateNode : lora::Function<ActivateNode> {
  static Variable forward(AutogradContext* ctx, const Variable& gate,
                          const std::optional<Variable>& up, const KeptGates* kept,
                          const ActivationRule* rule) {
    keep(ctx, *kept, *rule);
    return activated(gate, up.value_or(at::Tensor()), *rule);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const at::Tensor both = gradients_of(ctx, gradients[0]);
    const int64_t inner = gradients[0].size(1);
    if (both.size(1) == inner) return {both, Variable(), Variable(), Variable()};
    const auto d = lora::columns_of(both, {inner, inner});
    return {d[0], d[1], Variable(), Variable()};
  }
};

struct ActivateHalvesNode : lora::Function<ActivateHalvesNode> {
  static Variable forward(AutogradContext* ctx, const Variable& gate_up, const KeptGates* kept,
                          const ActivationRule* rule) {
    keep(ctx, *kept, *rule);
    const KeptGates halves = keep_halves(gate_up, gate_up.scalar_type());
    return activated(halves.gate, halves.up, *rule);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    return {gradients_of(ctx, gradients[0]), Variable(), Variable()};
  }
};

void check_rule(const ActivationRule& rule, bool gated) {
  check(gated || rule.kind != Activation::kClampedSilu,
        "activate: the clamped SiLU is a gated activation");
}

}  // namespace

KeptGates keep_gates(const at::Tensor& gate, const at::Tensor& up, at::ScalarType type) {
  return {gate.detach().to(type), up.defined() ? up.detach().to(type) : up};
}

KeptGates keep_halves(const at::Tensor& gate_up, at::ScalarType type) {
  const at::Tensor both = gate_up.detach().to(type);
  const int64_t inner = both.size(1) / 2;
  return {both.narrow(1, 0, inner), both.narrow(1, inner, inner)};
}

at::Tensor activate_again(const KeptGates& kept, at::ScalarType type, const ActivationRule& rule) {
  at::NoGradGuard no_grad;
  return activated(kept.gate.to(type), kept.up.defined() ? kept.up.to(type) : kept.up, rule);
}

at::Tensor activation_gradients(const KeptGates& kept, const at::Tensor& d_out,
                                const ActivationRule& rule) {
  const ProfileScope scope("activation backward");
  const at::Tensor dy = d_out.contiguous();
  const bool gated = kept.up.defined();
  const at::Tensor gate = kept.gate.to(dy.scalar_type());
  const at::Tensor up = gated ? kept.up.to(dy.scalar_type()) : at::Tensor();
  const int64_t inner = gate.size(1);
  at::Tensor both = at::empty({gate.size(0), gated ? 2 * inner : inner}, gate.options());
  const ActivateBackward arguments{
      kernel_of(rule, gated),
      rows_of(gate),
      rows_of(up),
      rows_of(dy),
      mutable_rows_of(gated ? both.narrow(1, 0, inner) : both),
      gated ? mutable_rows_of(both.narrow(1, inner, inner)) : MutableRows{},
      quant::element_type(gate, "activate"),
      gate.size(0),
      inner};
  QLORA_DISPATCH(gate.device(), cpu::activate_backward(arguments),
                 cuda::activate_backward(arguments, current_stream(gate.device())));
  return both;
}

at::Tensor activate(const at::Tensor& gate, const at::Tensor& up, const KeptGates& kept,
                    const ActivationRule& rule) {
  check(gate.stride(1) == 1 && (!up.defined() || (gate.sizes() == up.sizes() && up.stride(1) == 1)),
        "activate: gate and up must be of one shape and have contiguous rows");
  check_rule(rule, up.defined());
  if (!at::GradMode::is_enabled()) return activated(gate, up, rule);
  return ActivateNode::apply(gate, up.defined() ? std::optional<Variable>(up) : std::nullopt, &kept,
                             &rule);
}

at::Tensor activate(const at::Tensor& gate, const at::Tensor& up, const ActivationRule& rule) {
  return activate(gate, up, keep_gates(gate, up, gate.scalar_type()), rule);
}

at::Tensor activate_halves(const at::Tensor& gate_up, const KeptGates& kept,
                           const ActivationRule& rule) {
  check(gate_up.stride(1) == 1 && gate_up.size(1) % 2 == 0,
        "activate_halves: gate and up must lie side by side in contiguous rows");
  if (!at::GradMode::is_enabled()) {
    const KeptGates halves = keep_halves(gate_up, gate_up.scalar_type());
    return activated(halves.gate, halves.up, rule);
  }
  return ActivateHalvesNode::apply(gate_up, &kept, &rule);
}

}  // namespace qlora::model
