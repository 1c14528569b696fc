#include "trainer/layer_memory.h"

#include <algorithm>

namespace qlora::trainer {
namespace {

constexpr int64_t kFloat = 4;
int64_t at(const std::array<int64_t, model::kNumGroups>& values, model::Group group) {
  return values[static_cast<size_t>(group)];
}

// Where attention is composed of stock operations, queries and keys stay beside their rotated
// copies.
bool copies_rotated(const LayerPass& p) { return p.on_gpu && !p.flash; }

// What attention has of its own in the backward pass on a GPU, elements of float32: sums of the
// queries' gradient, with each head's gradients of the keys and values where heads share them.
int64_t fused_backward_bytes(const LayerPass& p) {
  if (!p.on_gpu) return 0;
  const int64_t shared = p.queries > p.keys ? 2 * p.compute_bytes * p.queries : 0;
  return kFloat * (p.queries + p.heads) + shared;
}

// Attention in float32 of 16-bit tensors: all that goes in and comes out once more.
int64_t float_copies(const LayerPass& p) {
  if (!p.attends_in_float || p.compute_bytes == kFloat) return 0;
  return kFloat * (4 * p.queries + 4 * p.keys);
}

// A recomputed layer is passed from its input, which is kept for it, to the sum that it ends with;
// any other has the sum in the next layer's first norm.
bool is_alone(const LayerPass& p) { return !p.remakes_inputs; }

// Where gate and up are kept in a narrower type, the activation is made again of those.
bool remakes_activated(const LayerPass& p) {
  return p.remakes_inputs || p.gate_bytes != p.compute_bytes;
}

// Gate and up in the compute dtype beside what is kept of them in a narrower one: as products made
// them, until the layer's forward pass ends, and again while the backward pass needs them. Bytes
// of one token.
int64_t widened_gates(const LayerPass& p) {
  return p.gate_bytes != p.compute_bytes ? 2 * p.compute_bytes * p.inner : 0;
}

// A sum of a float32 and a 16-bit tensor makes a copy on the CPU.
bool casts_sums(const LayerPass& p) { return !p.on_gpu && p.compute_bytes != kFloat; }

// A node's buffers in the backward pass: gradients that came, those that it makes, and copies.
struct NodeBuffers {
  Stage node;
  int64_t bytes;  // a token
};

std::vector<NodeBuffers> backward_buffers(const LayerPass& p) {
  const int64_t c = p.compute_bytes, h = p.hidden, q = p.queries, k = p.keys, i = p.inner;
  const int64_t residual = kFloat * h;  // the gradient that bypasses the node
  // What recomputes a layer holds the gradient of its output, which the second norm replaces.
  const int64_t held = is_alone(p) ? residual : 0;
  const int64_t copies = p.dropout ? 3 : 1;  // of an input gradient
  const int64_t remade_activated = remakes_activated(p) ? c * i : 0;
  const int64_t wide = widened_gates(p);
  const int64_t remade = p.remakes_inputs ? c : 0;  // of an element of a node's input
  return {
      {Stage::kDown, residual + c * h + std::max(copies * c * i + remade_activated, wide + c * i)},
      {Stage::kSwiglu, residual + 3 * c * i + wide},
      {Stage::kGateUp, residual + 2 * c * i + (copies * c + remade) * h},
      {Stage::kSecondNorm, 2 * residual + (p.sums_onto ? 1 : 2) * c * h},
      {Stage::kOutput, residual + held + c * h + copies * c * q},
      {Stage::kAttention,
       residual + held + c * (2 * q + 2 * k) + fused_backward_bytes(p) + float_copies(p)},
      // A GPU's gradients do not lie side by side yet.
      {Stage::kQkv,
       residual + held + (p.on_gpu ? 2 : 1) * c * (q + 2 * k) + (copies * c + remade) * h},
      {Stage::kFirstNorm, 2 * residual + held + (is_alone(p) || p.sums_onto ? 1 : 2) * c * h}};
}

}  // namespace

std::vector<KeptTensor> kept_tensors(const LayerPass& p) {
  using model::Group;
  const int64_t c = p.compute_bytes, h = p.hidden, q = p.queries, k = p.keys, i = p.inner;
  const auto input = [&](Group group, int64_t features) {
    if (p.remakes_inputs) return int64_t{0};
    return p.trained[static_cast<size_t>(group)] ? features : 0;  // only its gradient needs it
  };
  // With a scale for each token.
  return {{Stage::kFirstNorm, "residual", (is_alone(p) ? 0 : h) + 1, kFloat},
          {Stage::kQkv, "normed input", input(Group::kQkv, h), c},
          {Stage::kQkv, "low-rank inputs", at(p.ranks, Group::kQkv), c},
          {Stage::kQkv, "products before DoRA's magnitude", at(p.dora, Group::kQkv), c},
          {Stage::kAttention, "rotated queries and keys, values", q + 2 * k, c},
          {Stage::kAttention, "output, which is the next product's input", q, c},
          {Stage::kAttention, "sums of the softmax", p.heads, kFloat},
          {Stage::kOutput, "low-rank inputs", at(p.ranks, Group::kOutput), c},
          {Stage::kOutput, "products before DoRA's magnitude", at(p.dora, Group::kOutput), c},
          {Stage::kSecondNorm, "residual", h + 1, kFloat},
          {Stage::kGateUp, "normed input", input(Group::kGateUp, h), c},
          {Stage::kGateUp, "low-rank inputs", at(p.ranks, Group::kGateUp), c},
          {Stage::kGateUp, "products before DoRA's magnitude", at(p.dora, Group::kGateUp), c},
          {Stage::kDown, "activated product", remakes_activated(p) ? 0 : input(Group::kDown, i), c},
          {Stage::kDown, "low-rank inputs", at(p.ranks, Group::kDown), c},
          {Stage::kDown, "products before DoRA's magnitude", at(p.dora, Group::kDown), c},
          {Stage::kSwiglu, "gate and up", 2 * i, p.gate_bytes}};
}

int64_t kept_bytes(const LayerPass& p) {
  int64_t bytes = 0;
  for (const KeptTensor& tensor : kept_tensors(p)) bytes += tensor.elements * tensor.bytes;
  return bytes * p.tokens;
}

int64_t forward_bytes(const LayerPass& p) {
  const int64_t c = p.compute_bytes, h = p.hidden, q = p.queries, k = p.keys, i = p.inner;
  // Alive to the end of the layer: what is not yet added to the residual, by the layer before and
  // by attention; queries and keys before a rotation that copies them, and the inputs of products
  // that are not kept.
  const int64_t unkept =
      (p.remakes_inputs ? 2 * c * h : 0) + (remakes_activated(p) ? c * i : 0) + widened_gates(p);
  const int64_t not_added = p.sums_onto ? 0 : (is_alone(p) ? 1 : 2) * c * h;
  const int64_t locals = not_added + (copies_rotated(p) ? c * (q + k) : 0) + unkept;
  // The last product, or the sum with it, or both.
  int64_t most = locals + (p.sums_onto ? kFloat : c) * h;
  if (is_alone(p) && !p.sums_onto) most += (casts_sums(p) ? 2 : 1) * kFloat * h;
  if (p.dropout) most = std::max(most, locals + c * i);  // an adapter's input
  // 8-bit inputs of the last layer, and of one before the activation; int32 products of both.
  const int64_t integers = p.in_int32 ? kFloat : 0;
  if (p.in_eight_bits)
    most = std::max({most, locals + (p.sums_onto ? kFloat : c) * h + integers * h + i,
                     locals - c * i + integers * i + h});
  return most * p.tokens;
}

int64_t backward_bytes(const LayerPass& p) {
  const std::vector<KeptTensor> kept = kept_tensors(p);
  int64_t freed = 0, most = 0;
  for (const NodeBuffers& buffers : backward_buffers(p)) {
    most = std::max(most, (buffers.bytes - freed) * p.tokens);
    for (const KeptTensor& tensor : kept)
      if (tensor.node == buffers.node) freed += tensor.elements * tensor.bytes;
  }
  return most;
}

int64_t graphless_bytes(const LayerPass& p) {
  const int64_t c = p.compute_bytes, h = p.hidden, q = p.queries, k = p.keys, i = p.inner;
  const int64_t attention = (p.sums_onto ? 1 : 2) * kFloat * h + c * (h + 3 * q + 3 * k);
  const int64_t residuals = p.sums_onto ? 3 : casts_sums(p) ? 5 : 4;
  const int64_t end = residuals * kFloat * h + c * ((p.sums_onto ? 2 : 4) * h + q) +
                      (copies_rotated(p) ? 2 : 1) * c * (q + 2 * k) + 3 * c * i;
  const int64_t eight_bits = p.in_int32 ? (kFloat - c) * i + h : p.in_eight_bits ? i : 0;
  return std::max(attention * p.tokens, (end + std::max<int64_t>(eight_bits, 0)) * p.tokens);
}

int64_t attention_buffer_bytes(const LayerPass& p) {
  if (p.on_gpu || !p.flash) return 0;
  if (p.attends_in_float) return p.tokens * kFloat * p.heads;
  // Values packed for the forward pass; the queries' gradients in float32 and a number for each
  // head in the backward pass.
  return p.tokens * (p.compute_bytes * p.keys + kFloat * (p.queries + p.heads));
}

}  // namespace qlora::trainer
