#include "model/block_forward.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <optional>

#include "model/norm.h"
#include "model/swiglu.h"

namespace qlora::model {
namespace {

// What the products of a branch read, and how the backward pass makes it again instead of keeping
// it.
struct Entry {
  NormOutput in;
  lora::RemadeInput again;
};

// A branch's group of linear layers with what reads its result.
class BlockRun {
 public:
  BlockRun(const BlockSpec& spec, const Block& block, int64_t layer, const BlockPass& pass,
           const lora::ForwardContext& context, bool output_unused)
      : spec_(spec),
        block_(block),
        layer_(layer),
        pass_(pass),
        context_(context),
        output_unused_(output_unused) {}

  Stream run(Stream stream) {
    for (size_t b = 0; b < spec_.branches.size(); ++b) {
      const bool last = b + 1 == spec_.branches.size();
      stream = branch(spec_.branches[b], block_.branches[b], stream, output_unused_ && last);
    }
    return stream;
  }

 private:
  Stream branch(const Branch& spec, const BranchWeights& weights, const Stream& stream,
                bool output_unused) {
    const Entry entry = enter(spec, weights, stream);
    const auto outputs = weights.in.forward(entry.in.normed, context_,
                                            context_.remakes_inputs ? &entry.again : nullptr);
    if (const AttentionSpec* attention_spec = spec.attention())
      return leave(spec, weights, entry.in.residual, attend(*attention_spec, outputs), nullptr,
                   output_unused);
    return activate_and_leave(spec, weights, entry.in.residual, outputs, output_unused);
  }

  Entry enter(const Branch& spec, const BranchWeights& weights, const Stream& stream) const {
    const bool enabled = context_.adapters_enabled;
    Entry entry;
    entry.in = add_rms_norm(stream.residual, stream.delta, weights.before.value(enabled),
                            spec.before.eps, pass_.compute, weights.before.gradient(enabled));
    entry.again = {{entry.in.residual.detach()},
                   [weight = weights.before.value(enabled), eps = spec.before.eps,
                    compute = pass_.compute](const std::vector<at::Tensor>& kept) {
                     return rms_norm(kept[0], weight, eps, compute);
                   }};
    return entry;
  }

  at::Tensor attend(const AttentionSpec& spec, const std::vector<at::Tensor>& qkv) const {
    return attention(qkv[0], qkv[1], qkv[2], spec.shape, pass_.attention, layer_);
  }

  Stream activate_and_leave(const Branch& spec, const BranchWeights& weights,
                            const at::Tensor& residual, const std::vector<at::Tensor>& gate_up,
                            bool output_unused) const {
    const bool narrow = pass_.narrow_gates && at::GradMode::is_enabled();
    const KeptGates gates =
        keep_gates(gate_up[0], gate_up[1], narrow ? at::kBFloat16 : gate_up[0].scalar_type());
    const at::Tensor activated = swiglu(gate_up[0], gate_up[1], gates);
    // Made again of the narrow ones wherever there are such, so that recomputation changes no bit.
    if (!context_.remakes_inputs && !narrow)
      return leave(spec, weights, residual, activated, nullptr, output_unused);
    const lora::RemadeInput again{{gates.gate, gates.up},
                                  [compute = pass_.compute](const std::vector<at::Tensor>& kept) {
                                    return swiglu_again({kept[0], kept[1]}, compute);
                                  }};
    return leave(spec, weights, residual, activated, &again, output_unused);
  }

  // The last product's result is added to the stream.
  Stream leave(const Branch&, const BranchWeights& weights, const at::Tensor& residual,
               const at::Tensor& x, const lora::RemadeInput* again, bool output_unused) const {
    lora::ForwardContext context = context_;
    context.output_unused = output_unused;
    if (weights.out.sums_onto(x, context))
      return {weights.out.forward_onto_residual(residual, x, context, again), at::Tensor()};
    return {residual, weights.out.forward(x, context, again)[0]};
  }

  const BlockSpec& spec_;
  const Block& block_;
  int64_t layer_;
  const BlockPass& pass_;
  const lora::ForwardContext& context_;
  bool output_unused_;
};

}  // namespace

at::Tensor Stream::sum() const { return delta.defined() ? residual.add(delta) : residual; }

bool Stream::requires_grad() const {
  return residual.requires_grad() || (delta.defined() && delta.requires_grad());
}

Stream block_forward(const BlockSpec& spec, const Block& block, int64_t layer, Stream stream,
                     const BlockPass& pass, const lora::ForwardContext& context,
                     bool output_unused) {
  return BlockRun(spec, block, layer, pass, context, output_unused).run(std::move(stream));
}

}  // namespace qlora::model
