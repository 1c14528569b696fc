#include "model/block_forward.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <optional>

#include "model/activation.h"
#include "model/clip.h"
#include "model/expert_outputs.h"
#include "model/expert_routing.h"
#include "model/norm.h"

namespace qlora::model {
namespace {

// What the products of a branch read, and how the backward pass makes it again instead of keeping
// it, where the context wants that.
struct Entry {
  NormOutput in;
  lora::RemadeInput again;
};

// What the last product of an MLP reads, and how the backward pass makes it again, if it does.
struct Activated {
  at::Tensor x;
  std::optional<lora::RemadeInput> again;

  const lora::RemadeInput* remade() const { return again ? &*again : nullptr; }
};

at::Tensor times(const at::Tensor& x, double factor) { return factor == 1 ? x : x * factor; }

class BlockRun {
 public:
  BlockRun(const BlockSpec& spec, const Block& block, int64_t layer, const BlockPass& pass,
           const lora::ForwardContext& context, bool output_unused, const at::Tensor& encoded)
      : spec_(spec),
        block_(block),
        layer_(layer),
        pass_(pass),
        context_(context),
        output_unused_(output_unused),
        encoded_(encoded) {}

  Stream run(Stream stream) {
    Entry entry;
    for (size_t b = 0; b < spec_.branches.size(); ++b) {
      const Branch& branch = spec_.branches[b];
      const BranchWeights& weights = block_.branches[b];
      entry = enter(branch, weights, stream, entry);
      const Stream onto = stream_below(branch, stream, entry);
      // A norm behind the last product reads it in the backward pass.
      const bool unused = output_unused_ && b + 1 == spec_.branches.size() &&
                          !branch.after.present() && !branch.sum.present();
      stream = mix(branch, weights, onto, entry, unused);
      if (branch.sum.present()) stream = normed_sum(branch, weights, stream);
    }
    return stream;
  }

 private:
  // What a branch's result is added to. Beside another branch the stream has that one's in it
  // already.
  static Stream stream_below(const Branch& branch, const Stream& stream, const Entry& entry) {
    if (branch.onto_normed) return {entry.in.normed.to(at::kFloat), at::Tensor()};
    return branch.beside ? stream : Stream{entry.in.residual, at::Tensor()};
  }

  Stream mix(const Branch& branch, const BranchWeights& weights, const Stream& onto,
             const Entry& entry, bool unused) const {
    const lora::RemadeInput* again = context_.remakes_inputs ? &entry.again : nullptr;
    if (const ExpertsSpec* experts = branch.experts())
      return {onto.sum() +
                  times(use_experts(*experts, weights, entry.in.normed, again), branch.multiplier),
              at::Tensor()};
    const auto outputs = weights.in.forward(entry.in.normed, context_, again);
    if (branch.attention())
      return leave(branch, weights, onto, attend(branch, weights, outputs), nullptr, unused);
    const Activated inner = activated(*branch.mlp(), outputs);
    return leave(branch, weights, onto, inner.x, inner.remade(), unused);
  }

  Stream normed_sum(const Branch& branch, const BranchWeights& weights,
                    const Stream& stream) const {
    return {add_norm(stream.sum(), at::Tensor(), weights.sum, branch.sum.rule, at::kFloat,
                     context_.adapters_enabled)
                .normed,
            at::Tensor()};
  }

  // `before`: what the branch before this one entered with.
  Entry enter(const Branch& spec, const BranchWeights& weights, const Stream& stream,
              const Entry& before) const {
    if (spec.same_norm) return before;
    const Stream read = spec.beside ? Stream{before.in.residual, at::Tensor()} : stream;
    const bool enabled = context_.adapters_enabled;
    Entry entry;
    entry.in = add_norm(read.residual, read.delta, weights.before, spec.before.rule, pass_.compute,
                        enabled);
    if (!context_.remakes_inputs) return entry;
    entry.again = {{entry.in.residual.detach()},
                   [&weight = weights.before, rule = spec.before.rule, compute = pass_.compute,
                    enabled](const std::vector<at::Tensor>& kept) {
                     return norm_again(kept[0], weight, rule, compute, enabled);
                   }};
    return entry;
  }

  at::Tensor attend(const Branch& branch, const BranchWeights& weights,
                    std::vector<at::Tensor> qkv) const {
    const AttentionSpec& spec = *branch.attention();
    const auto norm = [&](at::Tensor& x, const NormSpec& of, const lora::NormWeight& weight) {
      if (of.present())
        x = norm_rows(x, x.size(1) / of.size, weight, of.rule, context_.adapters_enabled);
    };
    norm(qkv.front(), spec.q_norm, weights.q_norm);
    if (spec.k_norm.present()) norm(qkv.at(1), spec.k_norm, weights.k_norm);
    if (spec.clamp > 0)
      for (at::Tensor& x : qkv) x = clip(x, spec.clamp);
    if (spec.scales_queries && pass_.query_factors.defined())
      qkv.front() = qkv.front() * pass_.query_factors.to(qkv.front().scalar_type());
    if (spec.shape.cross) {
      for (at::Tensor& x : keys_and_values(weights)) qkv.push_back(std::move(x));
      return attention(qkv, spec.shape, nullptr, pass_.cross, layer_);
    }
    const RotaryTable* rotary =
        spec.rotary == kNotRotated ? nullptr : &pass_.rotaries[static_cast<size_t>(spec.rotary)];
    return attention(qkv, spec.shape, rotary, pass_.attention, layer_);
  }

  // Of the encoder's output. A cache has them from the first tokens on.
  std::vector<at::Tensor> keys_and_values(const BranchWeights& weights) const {
    KvCache* cache = pass_.attention.cache;
    if (cache && !encoded_.defined()) return cache->encoded(layer_);
    std::vector<at::Tensor> made = weights.of_encoder.forward(encoded_, context_);
    if (cache) cache->keep_encoded(layer_, made);
    return made;
  }

  // Gated if there are two inputs, or both are halves of one.
  Activated activated(const ActivationRule& rule, const std::vector<at::Tensor>& inputs,
                      bool halves) const {
    const bool narrow = pass_.narrow_gates && at::GradMode::is_enabled();
    const at::ScalarType kept_type = narrow ? at::kBFloat16 : inputs[0].scalar_type();
    const at::Tensor up = inputs.size() > 1 ? inputs[1] : at::Tensor();
    const KeptGates kept =
        halves ? keep_halves(inputs[0], kept_type) : keep_gates(inputs[0], up, kept_type);
    Activated inner{
        halves ? activate_halves(inputs[0], kept, rule) : activate(inputs[0], up, kept, rule), {}};
    // Made again of the narrow ones wherever there are such, so that recomputation changes no bit.
    if (!context_.remakes_inputs && !narrow) return inner;
    std::vector<at::Tensor> from;
    from.reserve(2);
    from.push_back(kept.gate);
    if (kept.up.defined()) from.push_back(kept.up);
    inner.again = lora::RemadeInput{
        std::move(from), [compute = pass_.compute, rule](const std::vector<at::Tensor>& tensors) {
          return activate_again({tensors[0], tensors.size() > 1 ? tensors[1] : at::Tensor()},
                                compute, rule);
        }};
    return inner;
  }

  Activated activated(const MlpSpec& spec, const std::vector<at::Tensor>& inputs) const {
    return activated(spec.activation, inputs, spec.gated && inputs.size() == 1);
  }

  // fp32 [tokens, hidden], what the chosen experts give and the shared one.
  at::Tensor use_experts(const ExpertsSpec& spec, const BranchWeights& weights, const at::Tensor& x,
                         const lora::RemadeInput* again) const {
    const Routed routed = route(weights.router.forward(x, context_, again)[0], spec.routing);
    const at::Tensor y = expert_outputs(to_experts(x, routed),
                                        {&weights.experts,
                                         routed.rows_of_expert,
                                         spec.activation,
                                         pass_.narrow_gates && at::GradMode::is_enabled(),
                                         {x, routed.token_of_row}},
                                        context_);
    at::Tensor sum = from_experts(y, routed);
    if (spec.shared) sum = sum + shared_expert(spec, weights, x, again);
    return sum;
  }

  at::Tensor shared_expert(const ExpertsSpec& spec, const BranchWeights& weights,
                           const at::Tensor& x, const lora::RemadeInput* again) const {
    const Activated inner = activated(*spec.shared, weights.in.forward(x, context_, again));
    const at::Tensor y = weights.out.forward(inner.x, context_, inner.remade())[0];
    if (!spec.shared_gate.present()) return y.to(at::kFloat);
    const at::Tensor gate = weights.shared_gate.forward(x, context_, again)[0];
    return at::sigmoid(gate.to(at::kFloat)) * y;
  }

  // The last product's result is added to the stream.
  Stream leave(const Branch& branch, const BranchWeights& weights, const Stream& onto,
               const at::Tensor& x, const lora::RemadeInput* again, bool output_unused) const {
    lora::ForwardContext context = context_;
    context.output_unused = output_unused;
    const bool as_it_is = !branch.after.present() && branch.multiplier == 1;
    if (as_it_is && weights.out.sums_onto(x, context))
      return {weights.out.forward_onto_residual(onto.sum(), x, context, again), at::Tensor()};
    at::Tensor delta = weights.out.forward(x, context, again)[0];
    if (branch.after.present())
      delta = norm_rows(delta, 1, weights.after, branch.after.rule, context_.adapters_enabled);
    return {onto.sum(), times(delta, branch.multiplier)};
  }

  const BlockSpec& spec_;
  const Block& block_;
  int64_t layer_;
  const BlockPass& pass_;
  const lora::ForwardContext& context_;
  bool output_unused_;
  const at::Tensor& encoded_;
};

}  // namespace

at::Tensor Stream::sum() const { return delta.defined() ? residual.add(delta) : residual; }

bool Stream::requires_grad() const {
  return residual.requires_grad() || (delta.defined() && delta.requires_grad());
}

Stream block_forward(const BlockSpec& spec, const Block& block, int64_t layer, Stream stream,
                     const BlockPass& pass, const lora::ForwardContext& context, bool output_unused,
                     const at::Tensor& encoded) {
  return BlockRun(spec, block, layer, pass, context, output_unused, encoded).run(std::move(stream));
}

}  // namespace qlora::model
