// What one decoder layer holds while a micro-batch passes: the tensors its autograd nodes keep for
// the backward pass, and what comes on top of them at the fullest moment. All of memory_plan.h's
// activations come from the two tables in layer_memory.cpp; a change of what a node saves is a
// change of one line there.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "model/linear_shapes.h"

namespace qlora::trainer {

// A layer, and how it is run.
struct LayerPass {
  int64_t hidden = 0, queries = 0, keys = 0, inner = 0, heads = 0;
  // By model::Group: whether anything in it is trained, the sum of its adapters' ranks, and the
  // output features that have a DoRA magnitude.
  std::array<bool, model::kNumGroups> trained = {};
  std::array<int64_t, model::kNumGroups> ranks = {}, dora = {};
  bool remakes_inputs = false;  // of products, from what is kept in any case
  int64_t compute_bytes = 2;    // of an element in the compute dtype
  int64_t gate_bytes = 2;       // of an element of gate and up as they are kept
  bool dropout = false;         // of the adapters' inputs
  bool in_eight_bits = false;   // forward products with 8-bit inputs
  bool in_int32 = false;        // which come as int32 before they are scaled
  bool sums_onto = false;       // products are added to the residual stream as they are made
  bool on_gpu = false;
  bool flash = true;                // attention never holds its scores
  bool attends_in_float = false;    // ... and takes copies in float32 of what is 16-bit
  int64_t tokens = 0, longest = 0;  // of the micro-batch, and of its longest document
};

// The autograd nodes of a layer in the order of the backward pass.
enum class Stage { kDown, kSwiglu, kGateUp, kSecondNorm, kOutput, kAttention, kQkv, kFirstNorm };

// What a node keeps from the forward to the backward pass.
struct KeptTensor {
  Stage node;
  const char* what;
  int64_t elements;  // a token
  int64_t bytes;     // an element
};
std::vector<KeptTensor> kept_tensors(const LayerPass& pass);

// Bytes of kept_tensors().
int64_t kept_bytes(const LayerPass& pass);
// Bytes beyond those while the layer is passed forward with a graph, and while it is passed
// backward (what a node kept is freed when it is done, so this may be less than a node's own
// buffers).
int64_t forward_bytes(const LayerPass& pass);
int64_t backward_bytes(const LayerPass& pass);
// Bytes of a forward pass without a graph: under recomputation, and in evaluations.
int64_t graphless_bytes(const LayerPass& pass);
// Buffers that the attention kernel keeps from one call to the next.
int64_t attention_buffer_bytes(const LayerPass& pass);

}  // namespace qlora::trainer
