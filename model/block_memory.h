// What one block holds while a micro-batch passes: the tensors its autograd nodes keep for the
// backward pass, and what comes on top of them at the fullest moment. All of memory_plan.h's
// activations come from here: what the nodes of block_forward.cpp keep and need is listed node by
// node in block_memory.cpp, and a change of what a node saves is a change of one line there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/block_spec.h"

namespace qlora::model {

// What a run trains of the linear layers that share an input.
struct GroupUse {
  bool trained = false;         // anything
  int64_t ranks = 0, dora = 0;  // sums: of its adapters' ranks, of outputs with a DoRA magnitude
};
struct BranchUse {
  GroupUse in, out;                                       // of experts, those of the shared one
  GroupUse router = {}, expert_in = {}, expert_out = {};  // the latter of one expert
  GroupUse of_encoder = {};                               // of cross-attention's keys and values

  bool any() const {
    return in.trained || of_encoder.trained || out.trained || router.trained || expert_in.trained ||
           expert_out.trained;
  }
  // Of group `index` of Branch::groups(); null for those of all experts but the first, which are
  // alike, and of the shared expert's gate.
  GroupUse* of_group(const Branch& branch, size_t index);
};

// How a block is run.
struct PassShape {
  std::vector<BranchUse> branches;  // as BlockSpec::branches; empty: nothing is trained
  int64_t hidden = 0;
  bool remakes_inputs = false;  // of products, from what is kept in any case
  int64_t compute_bytes = 2;    // of an element in the compute dtype
  int64_t gate_bytes = 2;       // of an element of what an activation reads, as it is kept
  bool dropout = false;         // of the adapters' inputs
  bool in_eight_bits = false;   // forward products with 8-bit inputs
  bool in_int32 = false;        // which come as int32 before they are scaled
  bool sums_onto = false;       // products are added to the residual stream as they are made
  bool on_gpu = false;
  bool flash = true;                // attention never holds its scores
  bool attends_in_float = false;    // ... and takes copies in float32 of what is 16-bit
  int64_t tokens = 0, longest = 0;  // of the micro-batch, and of its longest document
};

// What a node keeps from the forward to the backward pass.
struct KeptTensor {
  std::string what;
  int64_t elements;  // a token
  int64_t bytes;     // an element
};

// An autograd node of a block.
struct NodeMemory {
  std::string node;  // "attention", "down_proj"
  std::vector<KeptTensor> kept;
  // Of the backward pass, bytes a token: gradients that came, those that it makes, and copies.
  int64_t backward = 0;
};
// In the order of the backward pass.
std::vector<NodeMemory> node_memory(const BlockSpec& block, const PassShape& pass);

// Bytes of all that is kept.
int64_t kept_bytes(const BlockSpec& block, const PassShape& pass);
// Bytes beyond those while the block is passed forward with a graph, and while it is passed
// backward (what a node kept is freed when it is done, so this may be less than a node's own
// buffers).
int64_t forward_bytes(const BlockSpec& block, const PassShape& pass);
int64_t backward_bytes(const BlockSpec& block, const PassShape& pass);
// Bytes of a forward pass without a graph: under recomputation, and in evaluations.
int64_t graphless_bytes(const BlockSpec& block, const PassShape& pass);
// Buffers that the attention kernel keeps from one call to the next.
int64_t attention_buffer_bytes(const BlockSpec& block, const PassShape& pass);

}  // namespace qlora::model
