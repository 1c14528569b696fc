#include "trainer/loss.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/profile.h"
#include "base/seed.h"
#include "base/upload.h"
#include "data/example.h"
#include "lora/autograd_function.h"
#include "quant/elements/element_tensor.h"
#include "trainer/loss_kernels.h"

namespace qlora::trainer {
namespace {

using lora::AutogradContext;
using lora::Variable;
using lora::variable_list;

// What each target's loss is multiplied by.
struct Weights {
  double all = 1;
  const std::vector<double>* each = nullptr;  // by token, instead

  double of(size_t token) const { return each != nullptr ? (*each)[token] : all; }
};

// On the device of the hidden states.
struct Supervised {
  at::Tensor rows;  // indices into hidden
  at::Tensor targets;
  at::Tensor weights, scales;  // one a target, in float64 and in float32

  int64_t count() const { return rows.size(0); }
};

Supervised supervised(const std::vector<int32_t>& targets, const Weights& weights, int64_t vocab,
                      at::Device device) {
  std::vector<int64_t> rows, wanted;
  std::vector<double> weighed;
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] == data::kIgnore) continue;
    check(targets[i] >= 0 && targets[i] < vocab,
          "cross entropy: target {} is outside the vocabulary of {}", targets[i], vocab);
    rows.push_back(static_cast<int64_t>(i));
    wanted.push_back(targets[i]);
    weighed.push_back(weights.of(i));
  }
  const at::Tensor wide = upload(at::tensor(weighed, at::kDouble), device);
  return {upload(at::tensor(rows, at::kLong), device),
          upload(at::tensor(wanted, at::kLong), device), wide, wide.to(at::kFloat)};
}

// Losses of the chunk whose rows begin at `begin`, fp32 [rows]; with `gradient`, logits turn into
// the weighted losses' gradient.
void chunk_losses_into(at::Tensor losses, at::Tensor& logits, const Supervised& s, int64_t begin,
                       bool gradient) {
  const ProfileScope scope("softmax and loss");
  const SoftmaxCrossEntropy arguments{logits.mutable_data_ptr(),
                                      quant::element_type(logits, "cross entropy"),
                                      s.targets.const_data_ptr<int64_t>() + begin,
                                      logits.size(0),
                                      logits.size(1),
                                      s.scales.const_data_ptr<float>() + begin,
                                      gradient,
                                      losses.mutable_data_ptr<float>()};
  QLORA_DISPATCH(logits.device(), cpu::softmax_cross_entropy(arguments),
                 cuda::softmax_cross_entropy(arguments, current_stream(logits.device())));
}

// cap tanh(z / cap) where the logits lie.
void cap_logits(at::Tensor& logits, double cap) {
  if (cap > 0) logits.div_(cap).tanh_().mul_(cap);
}

int64_t vocabulary(const lora::LinearGroup& head) { return head.layers().front().out_features(); }

// Visits the supervised rows chunk by chunk: (first, rows, indices of the rows in hidden).
template <typename Visit>
void for_each_chunk(const at::Tensor& hidden, const Supervised& s, const Visit& visit) {
  const int64_t most = loss_chunk_rows(hidden.element_size());
  for (int64_t begin = 0; begin < s.count(); begin += most) {
    const at::Tensor index = s.rows.narrow(0, begin, std::min(most, s.count() - begin));
    visit(begin, hidden.index_select(0, index), index);
  }
}

// Each chunk drops other inputs.
lora::ForwardContext context_of_chunk(lora::ForwardContext context, int64_t begin) {
  context.dropout_key = random_key(context.dropout_key, static_cast<uint64_t>(begin));
  return context;
}

// The gradient towards a chunk's rows, undefined if none is wanted; on the way it adds the weighted
// losses and the gradients of what is trained of the head.
at::Tensor chunk_gradient(const at::Tensor& rows, bool wanted, const lora::LinearGroup& head,
                          const lora::ForwardContext& context, const Supervised& s, int64_t begin,
                          double softcap, at::Tensor& sum) {
  at::AutoGradMode with_grad(true);
  const at::Tensor leaf = rows.detach().requires_grad_(wanted);
  const at::Tensor logits = head.forward(leaf, context)[0];
  at::Tensor gradient = logits.detach();  // the same memory: logits turn into their gradient
  cap_logits(gradient, softcap);
  const at::Tensor capped = softcap > 0 ? gradient.clone() : at::Tensor();
  const at::Tensor losses = at::empty({rows.size(0)}, rows.options().dtype(at::kFloat));
  chunk_losses_into(losses, gradient, s, begin, true);
  sum.add_(losses.to(at::kDouble).mul_(s.weights.narrow(0, begin, losses.size(0))).sum());
  if (softcap > 0) gradient.mul_(capped.div_(softcap).square_().neg_().add_(1));  // of tanh
  if (logits.requires_grad()) logits.backward(gradient);
  return leaf.grad();
}

struct CrossEntropyNode : lora::Function<CrossEntropyNode> {
  // `anchor`: of the head, if anything in it is trained.
  static Variable forward(AutogradContext* ctx, const Variable& hidden,
                          const std::optional<Variable>& anchor,
                          const std::vector<int32_t>& targets, const Weights& weights,
                          const lora::LinearGroup* head, const lora::ForwardContext* context,
                          double softcap) {
    (void)anchor;
    const ProfileScope scope("head");
    const Supervised s = supervised(targets, weights, vocabulary(*head), hidden.device());
    const bool wanted = hidden.requires_grad();
    at::Tensor d_hidden = wanted ? at::zeros_like(hidden) : at::Tensor();
    at::Tensor sum = at::zeros({}, hidden.options().dtype(at::kDouble));
    for_each_chunk(
        hidden.detach(), s, [&](int64_t begin, const at::Tensor& rows, const at::Tensor& index) {
          const at::Tensor d_rows = chunk_gradient(
              rows, wanted, *head, context_of_chunk(*context, begin), s, begin, softcap, sum);
          if (wanted) d_hidden.index_copy_(0, index, d_rows);
        });
    ctx->save_for_backward({d_hidden});
    return sum.to(at::kFloat);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    at::Tensor d_hidden = ctx->get_saved_variables()[0];
    if (d_hidden.defined()) d_hidden = d_hidden * gradients[0].to(d_hidden.scalar_type());
    return {d_hidden, Variable(), Variable(), Variable(), Variable(), Variable(), Variable()};
  }
};

at::Tensor cross_entropy(const at::Tensor& hidden, const std::vector<int32_t>& targets,
                         const Weights& weights, const lora::LinearGroup& head,
                         const lora::ForwardContext& context, double softcap) {
  check(hidden.size(0) == static_cast<int64_t>(targets.size()),
        "cross entropy: {} hidden rows but {} targets", hidden.size(0), targets.size());
  const auto anchor =
      head.anchor().defined() ? std::optional<Variable>(head.anchor()) : std::nullopt;
  return CrossEntropyNode::apply(hidden, anchor, targets, weights, &head, &context, softcap);
}

}  // namespace

at::Tensor fused_cross_entropy(const at::Tensor& hidden, const std::vector<int32_t>& targets,
                               const lora::LinearGroup& head, double scale,
                               const lora::ForwardContext& context, double softcap) {
  return cross_entropy(hidden, targets, {scale}, head, context, softcap);
}

at::Tensor weighted_cross_entropy(const at::Tensor& hidden, const std::vector<int32_t>& targets,
                                  const std::vector<double>& weights, const lora::LinearGroup& head,
                                  const lora::ForwardContext& context, double softcap) {
  check(weights.size() == targets.size(), "cross entropy: {} weights for {} targets",
        weights.size(), targets.size());
  return cross_entropy(hidden, targets, {1, &weights}, head, context, softcap);
}

std::vector<float> token_losses(const at::Tensor& hidden, const std::vector<int32_t>& targets,
                                const lora::LinearGroup& head, const lora::ForwardContext& context,
                                double softcap) {
  at::NoGradGuard no_grad;
  const Supervised s = supervised(targets, {}, vocabulary(head), hidden.device());
  const at::Tensor losses = at::empty({s.count()}, hidden.options().dtype(at::kFloat));
  for_each_chunk(hidden, s, [&](int64_t begin, const at::Tensor& rows, const at::Tensor&) {
    at::Tensor logits = head.forward(rows, context_of_chunk(context, begin))[0];
    cap_logits(logits, softcap);
    chunk_losses_into(losses.narrow(0, begin, rows.size(0)), logits, s, begin, false);
  });
  const at::Tensor on_host = losses.cpu();  // once: a GPU would be idle while the host waits
  const float* first = on_host.const_data_ptr<float>();
  return {first, first + on_host.numel()};
}

}  // namespace qlora::trainer
