#include "model/block_memory.h"

#include <algorithm>

namespace qlora::model {
namespace {

constexpr int64_t kFloat = 4;

// Where attention is composed of stock operations, queries and keys stay beside their rotated
// copies.
bool copies_rotated(const PassShape& p) { return p.on_gpu && !p.flash; }

// What attention has of its own in the backward pass on a GPU, elements of float32: sums of the
// queries' gradient, with each head's gradients of the keys and values where heads share them.
int64_t fused_backward_bytes(const AttentionSpec& a, const PassShape& p) {
  if (!p.on_gpu) return 0;
  const int64_t shared = a.queries() > a.keys() ? 2 * p.compute_bytes * a.queries() : 0;
  return kFloat * (a.queries() + a.shape.heads) + shared;
}

// Attention in float32 of 16-bit tensors: all that goes in and comes out once more.
int64_t float_copies(const AttentionSpec& a, const PassShape& p) {
  if (!p.attends_in_float || p.compute_bytes == kFloat) return 0;
  return kFloat * (4 * a.queries() + 4 * a.keys());
}

// A recomputed block is passed from its input, which is kept for it, to the sum that it ends with;
// any other has the sum in the next block's first norm.
bool is_alone(const PassShape& p) { return !p.remakes_inputs; }

// Where what an activation reads is kept in a narrower type, its result is made again of that.
bool remakes_activated(const PassShape& p) {
  return p.remakes_inputs || p.gate_bytes != p.compute_bytes;
}

// What an activation reads: gate and up, or up alone. Elements of a token.
int64_t activation_inputs(const MlpSpec& m) { return (m.gated ? 2 : 1) * m.inner; }

// The same in the compute dtype beside what is kept of it in a narrower one: as products made it,
// until the block's forward pass ends, and again while the backward pass needs it. Bytes of one
// token.
int64_t widened_gates(const MlpSpec& m, const PassShape& p) {
  return p.gate_bytes != p.compute_bytes ? p.compute_bytes * activation_inputs(m) : 0;
}

// A sum of a float32 and a 16-bit tensor makes a copy on the CPU.
bool casts_sums(const PassShape& p) { return !p.on_gpu && p.compute_bytes != kFloat; }

const BranchUse& use_of(const PassShape& p, size_t branch) {
  static const BranchUse nothing;
  return branch < p.branches.size() ? p.branches[branch] : nothing;
}

// The nodes of one branch.
class BranchNodes {
 public:
  BranchNodes(const BlockSpec& block, size_t index, const PassShape& p)
      : branch_(block.branches[index]),
        use_(use_of(p, index)),
        p_(p),
        first_(index == 0),
        residual_(kFloat * p.hidden),
        // What recomputes a block holds the gradient of its output, which the last branch's norm
        // replaces.
        held_(is_alone(p) && index + 1 < block.branches.size() ? residual_ : 0),
        copies_(p.dropout ? 3 : 1) {}

  std::vector<NodeMemory> backward_order() const {
    std::vector<NodeMemory> nodes;
    if (branch_.sum.present()) nodes.push_back(normed_sum());
    if (branch_.after.present()) nodes.push_back(after());
    if (const ExpertsSpec* e = branch_.experts()) {
      add_experts(*e, nodes);
    } else if (const AttentionSpec* a = branch_.attention()) {
      nodes.push_back(last_product(a->out, nullptr));
      nodes.push_back(attention(*a));
      if (a->q_norm.present()) nodes.push_back(head_norms(*a));
      if (a->shape.cross) nodes.push_back(encoder_products(*a));
      nodes.push_back(first_products(a->in));
    } else {
      add_mlp(*branch_.mlp(), nodes);
    }
    if (!branch_.same_norm) nodes.push_back(norm());
    return nodes;
  }

 private:
  int64_t input(const GroupUse& use, int64_t features) const {
    if (p_.remakes_inputs) return 0;
    return use.trained ? features : 0;  // only its gradient needs it
  }
  // What the nodes of the adapters keep.
  std::vector<KeptTensor> products(const GroupUse& use) const {
    return {{"low-rank inputs", use.ranks, p_.compute_bytes},
            {"products before DoRA's magnitude", use.dora, p_.compute_bytes}};
  }

  NodeMemory after() const {
    return {branch_.after.names.hugging_face,
            {{"branch's output", p_.hidden, p_.compute_bytes}, {"scale", 1, kFloat}},
            residual_ + held_ + 2 * p_.compute_bytes * p_.hidden};
  }

  NodeMemory normed_sum() const {
    return {branch_.sum.names.hugging_face,
            {{"sum", p_.hidden, kFloat}, {"scale", 1, kFloat}},
            2 * residual_ + held_};
  }

  void add_mlp(const MlpSpec& m, std::vector<NodeMemory>& nodes) const {
    nodes.push_back(last_product(m.out, &m));
    nodes.push_back(activation(m));
    nodes.push_back(first_products(m.in));
  }

  // Of each token as many rows as experts are active. The experts' inputs are copies, which are
  // made again; their outputs are kept for the gradient of their weights. What one expert needs
  // while it is computed is small beside what all keep.
  void add_experts(const ExpertsSpec& e, std::vector<NodeMemory>& nodes) const {
    const int64_t c = p_.compute_bytes, h = p_.hidden, k = e.routing.active;
    const int64_t hold = residual_ + held_;
    if (e.shared) add_mlp(*e.shared, nodes);
    const auto rows = [k](std::vector<KeptTensor> kept) {
      for (KeptTensor& tensor : kept) tensor.elements *= k;
      return kept;
    };
    nodes.push_back({"sum of the experts",
                     rows({{"experts' outputs", h, c}, {"places and weights", 1, 12}}),
                     hold + k * c * h});
    const int64_t of_router = input(use_.router, h);
    NodeMemory experts{"experts",
                       rows({{"gate and up", 2 * e.inner, p_.gate_bytes},
                             {"low-rank inputs", use_.expert_in.ranks + use_.expert_out.ranks, c}}),
                       hold + 2 * k * c * h};
    experts.kept.push_back(
        {"input of the experts", use_.expert_in.trained && of_router == 0 ? h : 0, c});
    nodes.push_back(std::move(experts));
    std::vector<KeptTensor> router = products(use_.router);
    router.push_back({"choice and softmax", e.routing.renormalise ? k : e.routing.experts, 12});
    router.push_back({"normed input", of_router, c});
    nodes.push_back({e.router.names.hugging_face, router, hold + 2 * c * h});
  }

  // `m`: whose product it is; null for attention's.
  NodeMemory last_product(const LinearSpec& out, const MlpSpec* m) const {
    const int64_t c = p_.compute_bytes, width = out.in;
    NodeMemory node{out.names.hugging_face, products(use_.out)};
    int64_t remade = 0, wide = 0;
    if (m) {
      remade = remakes_activated(p_) ? c * width : 0;
      wide = widened_gates(*m, p_);
      node.kept.push_back(
          {"activated product", remakes_activated(p_) ? 0 : input(use_.out, width), c});
    }
    node.backward = residual_ + held_ + c * p_.hidden +
                    std::max(copies_ * c * width + remade, wide + c * width);
    return node;
  }

  NodeMemory attention(const AttentionSpec& a) const {
    const int64_t c = p_.compute_bytes, q = a.queries(), k = a.keys();
    if (!p_.flash && (a.shape.relative_bias || a.shape.cross)) return composed_attention(a);
    // Capped scores and the softmax of them, where no kernel spares them.
    const int64_t scores = p_.flash || a.shape.is_plain() ? 0 : 2 * a.shape.heads * p_.longest;
    return {"attention",
            {{"rotated queries and keys, values", q + 2 * k, c},
             {"output, which is the next product's input", q, c},
             {"sums of the softmax", a.shape.heads, kFloat},
             {"scores", scores, kFloat}},
            residual_ + held_ + c * (2 * q + 2 * k) + fused_backward_bytes(a, p_) +
                float_copies(a, p_) + kFloat * scores};
  }

  // composed_attention.cpp without a cap: scores are products of queries and keys in float32, and
  // the values are summed by the softmax in the compute dtype.
  NodeMemory composed_attention(const AttentionSpec& a) const {
    const int64_t c = p_.compute_bytes, q = a.queries(), k = a.keys();
    const int64_t scores = a.shape.heads * p_.longest;
    return {"attention",
            {{"queries and keys", q + k, kFloat},
             {"values", k, c},
             {"softmax", scores, kFloat},
             {"softmax in the compute dtype", c == kFloat ? 0 : scores, c},
             {"output, which is the next product's input", q, c}},
            residual_ + held_ + c * (2 * q + 2 * k) + float_copies(a, p_) + 2 * kFloat * scores};
  }

  // Of cross-attention; their input is the encoder's output, which all layers share.
  NodeMemory encoder_products(const AttentionSpec& a) const {
    const int64_t c = p_.compute_bytes;
    return {a.of_encoder.front().names.hugging_face, products(use_.of_encoder),
            residual_ + held_ + c * (2 * a.keys() + (copies_ + 1) * p_.hidden)};
  }

  NodeMemory head_norms(const AttentionSpec& a) const {
    const int64_t c = p_.compute_bytes, both = a.queries() + a.keys();
    return {"norms of queries and keys",
            {{"queries and keys before them", both, c}, {"scales", both / a.q_norm.size, kFloat}},
            residual_ + held_ + c * (2 * both + a.keys())};
  }

  NodeMemory activation(const MlpSpec& m) const {
    const int64_t inputs = activation_inputs(m);
    return {"activation",
            {{"gate and up", inputs, p_.gate_bytes}},
            residual_ + held_ + p_.compute_bytes * (inputs + m.inner) + widened_gates(m, p_)};
  }

  NodeMemory first_products(const std::vector<LinearSpec>& in) const {
    const int64_t c = p_.compute_bytes;
    NodeMemory node{in.front().names.hugging_face, products(use_.in)};
    node.kept.push_back({"normed input", input(use_.in, p_.hidden), c});
    int64_t outputs = 0;
    for (const LinearSpec& linear : in) outputs += linear.out;
    // A GPU's gradients of queries, keys and values do not lie side by side yet.
    const int64_t times = p_.on_gpu && branch_.attention() ? 2 : 1;
    const int64_t remade = p_.remakes_inputs ? c : 0;  // of an element of the input
    node.backward = residual_ + held_ + times * c * outputs + (copies_ * c + remade) * p_.hidden;
    return node;
  }

  // With a scale for each token. The input of a block that is alone is kept for it. Without a norm
  // nothing but the making of the next product's input once more needs the residual stream.
  NodeMemory norm() const {
    const bool has_input = first_ ? !is_alone(p_) : !branch_.beside;
    const bool no_delta = p_.sums_onto || (first_ && is_alone(p_));
    const bool is_needed = branch_.before.present() || p_.remakes_inputs;
    const int64_t kept = is_needed ? (has_input ? p_.hidden : 0) + 1 : 0;
    return {branch_.before.names.hugging_face,
            {{"residual", kept, kFloat}},
            2 * residual_ + held_ + (no_delta ? 1 : 2) * p_.compute_bytes * p_.hidden};
  }

  const Branch& branch_;
  const BranchUse& use_;
  const PassShape& p_;
  bool first_;
  int64_t residual_;  // the gradient that bypasses the node
  int64_t held_;
  int64_t copies_;  // of an input gradient
};

}  // namespace

GroupUse* BranchUse::of_group(const Branch& branch, size_t index) {
  const ExpertsSpec* experts = branch.experts();
  if (!experts && index > 0)
    return index == 1 && branch.attention() && branch.attention()->shape.cross ? &of_encoder : &out;
  if (!experts) return &in;
  const auto shared = static_cast<size_t>(1 + 2 * experts->routing.experts);
  if (index == 0) return &router;
  if (index == 1) return &expert_in;
  if (index == 2) return &expert_out;
  if (index == shared) return experts->shared ? &in : nullptr;
  return index == shared + 1 ? &out : nullptr;
}

std::vector<NodeMemory> node_memory(const BlockSpec& block, const PassShape& pass) {
  std::vector<NodeMemory> nodes;
  for (size_t i = block.branches.size(); i-- > 0;)
    for (NodeMemory& node : BranchNodes(block, i, pass).backward_order())
      nodes.push_back(std::move(node));
  return nodes;
}

int64_t kept_bytes(const BlockSpec& block, const PassShape& p) {
  int64_t bytes = 0;
  for (const NodeMemory& node : node_memory(block, p))
    for (const KeptTensor& tensor : node.kept) bytes += tensor.elements * tensor.bytes;
  return bytes * p.tokens;
}

int64_t backward_bytes(const BlockSpec& block, const PassShape& p) {
  int64_t freed = 0, most = 0;
  for (const NodeMemory& node : node_memory(block, p)) {
    most = std::max(most, (node.backward - freed) * p.tokens);
    for (const KeptTensor& tensor : node.kept) freed += tensor.elements * tensor.bytes;
  }
  return most;
}

int64_t forward_bytes(const BlockSpec& block, const PassShape& p) {
  const int64_t c = p.compute_bytes, h = p.hidden;
  const int64_t width = block.branches.back().out_width();
  // Alive to the end of the block: what is not yet added to the residual, by the block before and
  // by all branches but the last; queries and keys before a rotation that copies them, and the
  // inputs of products that are not kept.
  const auto branches = static_cast<int64_t>(block.branches.size());
  int64_t locals = p.sums_onto ? 0 : (branches - (is_alone(p) ? 1 : 0)) * c * h;
  for (const Branch& branch : block.branches) {
    if (p.remakes_inputs && !branch.same_norm) locals += c * h;
    if (const AttentionSpec* a = branch.attention()) {
      if (copies_rotated(p)) locals += c * (a->queries() + a->keys());
    } else if (const MlpSpec* m = branch.mlp()) {
      locals += (remakes_activated(p) ? c * m->out.in : 0) + widened_gates(*m, p);
    } else {
      locals += branch.experts()->routing.active * c * h;  // the rows of the experts
    }
  }
  // The last product, or the sum with it, or both.
  int64_t most = locals + (p.sums_onto ? kFloat : c) * h;
  if (is_alone(p) && !p.sums_onto) most += (casts_sums(p) ? 2 : 1) * kFloat * h;
  if (p.dropout) most = std::max(most, locals + c * width);  // an adapter's input
  // 8-bit inputs of the last layer, and of one before the activation; int32 products of both.
  const int64_t integers = p.in_int32 ? kFloat : 0;
  if (p.in_eight_bits)
    most = std::max({most, locals + (p.sums_onto ? kFloat : c) * h + integers * h + width,
                     locals - c * width + integers * width + h});
  return most * p.tokens;
}

int64_t graphless_bytes(const BlockSpec& block, const PassShape& p) {
  const int64_t c = p.compute_bytes, h = p.hidden;
  int64_t q = 0, k = 0, activation = 0, width = 0;
  for (const Branch& branch : block.branches) {
    if (const AttentionSpec* a = branch.attention()) {
      q = std::max(q, a->queries());
      k = std::max(k, a->keys());
    } else if (const MlpSpec* m = branch.mlp()) {
      activation = std::max(activation, activation_inputs(*m) + m->inner);
      width = std::max(width, m->out.in);
    } else {
      const ExpertsSpec& e = *branch.experts();
      activation = std::max(activation, e.routing.active * 2 * h + 3 * e.inner);
    }
  }
  const int64_t attention = (p.sums_onto ? 1 : 2) * kFloat * h + c * (h + 3 * q + 3 * k);
  const int64_t residuals = p.sums_onto ? 3 : casts_sums(p) ? 5 : 4;
  const int64_t end = residuals * kFloat * h + c * ((p.sums_onto ? 2 : 4) * h + q) +
                      (copies_rotated(p) ? 2 : 1) * c * (q + 2 * k) + c * activation;
  const int64_t eight_bits = p.in_int32 ? (kFloat - c) * width + h : p.in_eight_bits ? width : 0;
  return std::max(attention, end + std::max<int64_t>(eight_bits, 0)) * p.tokens;
}

int64_t attention_buffer_bytes(const BlockSpec& block, const PassShape& p) {
  if (p.on_gpu || !p.flash) return 0;
  const AttentionSpec& a = block.attention();
  if (p.attends_in_float) return p.tokens * kFloat * a.shape.heads;
  // Values packed for the forward pass; the queries' gradients in float32 and a number for each
  // head in the backward pass.
  return p.tokens * (p.compute_bytes * a.keys() + kFloat * (a.queries() + a.shape.heads));
}

}  // namespace qlora::model
