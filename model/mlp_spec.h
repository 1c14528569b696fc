// Linear layers, and what MLPs and mixtures of experts are made of, as data (block_spec.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/activation_rule.h"
#include "model/expert_routing_rule.h"

namespace qlora::model {

// A module's name in the two kinds of files, within its block or the whole model:
// "self_attn.q_proj" and "attn_q". GGUF's is empty where GGUF has no such tensor.
struct TensorNames {
  std::string hugging_face, gguf;
};

// How a GGUF file orders the rows of a matrix that transformers has head by head, as llama.cpp's
// convert_hf_to_gguf.py permutes them.
enum class RowOrder : uint8_t {
  kAsIs,
  kRotaryPairs,      // the two halves of each head interleaved
  kQueriesThenKeys,  // all queries, keys and values of a matrix that has them in groups of heads
};

// A linear layer: y = x Wᵀ + bias, W [out, in].
struct LinearSpec {
  TensorNames names;
  int64_t out = 0, in = 0;
  bool bias = false;
  // The key of config.json that promises or denies the bias; empty: the family itself does.
  std::string bias_key = {};
  RowOrder gguf_rows = RowOrder::kAsIs;
  // Hugging Face files hold Wᵀ, [in, out] (the Conv1D of GPT-2); GGUF files do not.
  bool stored_by_inputs = false;
  bool never_quantized = false;  // routers: small, and what they decide is all or nothing
  bool needs_bias = false;       // a file must have it: transformers draws a missing one at random

  bool present() const { return out > 0; }
  int64_t numbers() const { return out * in; }
};

struct MlpSpec {
  int64_t inner = 0;
  ActivationRule activation;
  bool gated = true;
  std::vector<LinearSpec> in;  // gate and up, or one that gives both, or up alone
  LinearSpec out;
};

// Where the files of a family hold its experts' matrices, within a block. "{}" stands for an
// expert's number; empty: files of the family never have them so.
struct ExpertFiles {
  std::string gate, up, down;                 // of one expert: "block_sparse_moe.experts.{}.w1"
  std::string stacked_gate_up, stacked_down;  // of all: [experts, 2 inner, hidden], the gate first
  // They are [experts, hidden, 2 inner] instead, gate and up taking turns, the other [experts,
  // inner, hidden], and have biases (gpt-oss). MXFP4 files have them as [experts, out, in].
  bool stacked_by_inputs = false;
};

// MLPs of which a router chooses some for each token (model/expert_routing.h). They are gated, gate
// and up one matrix.
struct ExpertsSpec {
  RoutingRule routing;
  int64_t inner = 0;
  ActivationRule activation = {};
  LinearSpec router;         // [experts, hidden]
  LinearSpec gate_up, down;  // of one expert: "mlp.experts.{}.gate_up_proj" [2 inner, hidden]
  ExpertFiles files = {};
  std::optional<MlpSpec> shared = {};  // an expert that every token uses, times the logistic
  LinearSpec shared_gate = {};         // function of this, [1, hidden]

  LinearSpec of_expert(const LinearSpec& linear, int64_t expert) const;
};

}  // namespace qlora::model
