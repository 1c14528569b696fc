// What the blocks of a model are made of, as data. A block is a list of branches: each reads the
// residual stream, mixes it, and is added to the stream. Whoever has to know a block asks this
// description: loading, the forward pass, LoRA's targets, the plans, the exporters. A family
// (families/) fills it in from a config.json or the metadata of a GGUF file, and nobody else has to
// know the family.
//
//   Llama, Qwen, Mistral, SmolLM3, Granite   [norm attention] [norm mlp]
//   Gemma 2 and 3, GLM-4                     [norm attention norm] [norm mlp norm]
//   OLMo 2                                   [attention norm] [mlp norm]
//   GPT-2, GPT-Neo, OPT, BLOOM, MPT          [norm attention] [norm mlp]
//   OPT-350m                                 [attention] norm [mlp] norm   of the sum
//   GPT-NeoX, Falcon-40B                     [norm attention] beside [norm mlp]
//   GPT-J, Falcon-7B, Phi-2, Cohere          [norm attention] beside [mlp]   of the same norm
//   Mixtral, Qwen2-MoE, gpt-oss              [norm attention] [norm experts]
//   T5's decoder                             [norm attention] [norm cross-attention] [norm mlp]
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "model/attention_shape.h"
#include "model/mlp_spec.h"
#include "model/norm_rule.h"

namespace qlora::model {

// A norm of rows of `size` numbers.
struct NormSpec {
  NormRule rule = {.kind = NormKind::kNone};
  TensorNames names = {};
  int64_t size = 0;
  bool weight = true, bias = false;  // OLMo 1 has neither
  int64_t groups = 1;                // rows of weights, one for each head (StableLM, Cohere)
  bool by_group = false;          // Hugging Face has a tensor for each group: NAME.norms.J.weight
  bool gguf_adds_offset = false;  // the weight in GGUF has the rule's offset in it

  bool present() const { return rule.kind != NormKind::kNone; }
  std::vector<int64_t> shape() const {
    return groups > 1 ? std::vector{groups, size} : std::vector{size};
  }
  // "model.layers.0.self_attn.q_layernorm.norms.3.weight"
  std::string tensor(const std::string& module, int64_t group) const {
    return module + ".norms." + std::to_string(group) + ".weight";
  }
  int64_t numbers() const { return groups * size; }  // of the weight, of the bias
};

constexpr int kNotRotated = -1;
struct AttentionSpec {
  AttentionShape shape;
  int rotary = kNotRotated;           // an index into Architecture::rotaries
  double clamp = 0;                   // of queries, keys and values (OLMo's clip_qkv); 0: none
  TensorNames sinks = {};             // [heads], where shape.sinks: whole names of the tensor
  bool scales_queries = false;        // by Architecture::query_scaling
  NormSpec q_norm = {}, k_norm = {};  // before the rotation, of each head or of a whole row
  std::vector<LinearSpec> in;         // q, k and v, or one that gives all three
  std::vector<LinearSpec> of_encoder = {};  // k and v, where shape.cross; `in` is q
  LinearSpec out;

  int64_t queries() const { return shape.heads * shape.head_dim; }  // of a token, in numbers
  int64_t keys() const { return shape.kv_heads * shape.head_dim; }
};

// The norms of a branch, in the order in which they are hashed and written.
enum class NormPlace : uint8_t { kBefore, kQueries, kKeys, kAfter, kSum };

struct Branch {
  NormSpec before, after;  // of what it reads, of what it gives
  NormSpec sum = {};       // of the stream when the branch was added to it (post-norm)
  std::variant<AttentionSpec, MlpSpec, ExpertsSpec> mixer;
  double multiplier = 1;     // of what is added to the stream (Granite)
  bool beside = false;       // reads what the branch before it read: a parallel residual
  bool same_norm = false;    // ... as that branch normed it
  bool onto_normed = false;  // is added to what `before` gives, which becomes the stream

  const AttentionSpec* attention() const { return std::get_if<AttentionSpec>(&mixer); }
  const MlpSpec* mlp() const { return std::get_if<MlpSpec>(&mixer); }
  const ExpertsSpec* experts() const { return std::get_if<ExpertsSpec>(&mixer); }
  // The linear layers, those that share an input together: what reads the branch's input, what
  // reads the encoder's output, and what gives the branch's; of experts the router, those two of
  // each expert, and of the shared one, whose gate is last.
  std::vector<std::vector<LinearSpec>> groups() const;
  // What the last product reads, of one token.
  int64_t out_width() const;
};

struct BlockSpec {
  std::vector<Branch> branches;

  // The first branch that attends, the first that does not, and their mixers.
  Branch& attention_branch();
  Branch& mlp_branch();
  AttentionSpec& attention();
  const AttentionSpec& attention() const;
  MlpSpec& mlp();
  const MlpSpec& mlp() const;
  // Multiplications a token of the linear layers; of experts, of those that are active.
  int64_t active_numbers() const;
  // Calls visit(norm) and visit(linear) in the order in which they are hashed and written: the
  // norms of all branches, then the linear layers.
  template <typename Visit>
  void for_each_norm(const Visit& visit) const;
  template <typename Visit>
  void for_each_linear(const Visit& visit) const;
  // Calls visit(linear) to change it; experts are all alike, and not visited.
  template <typename Visit>
  void edit_each_linear(const Visit& visit);
};

// Calls visit(place, norm) for the norms of a branch that are there.
template <typename Visit>
void for_each_norm(const Branch& branch, const Visit& visit) {
  if (branch.before.present() && !branch.same_norm) visit(NormPlace::kBefore, branch.before);
  if (const AttentionSpec* attention = branch.attention()) {
    if (attention->q_norm.present()) visit(NormPlace::kQueries, attention->q_norm);
    if (attention->k_norm.present()) visit(NormPlace::kKeys, attention->k_norm);
  }
  if (branch.after.present()) visit(NormPlace::kAfter, branch.after);
  if (branch.sum.present()) visit(NormPlace::kSum, branch.sum);
}

template <typename Visit>
void BlockSpec::for_each_norm(const Visit& visit) const {
  for (const Branch& branch : branches)
    model::for_each_norm(branch, [&](NormPlace, const NormSpec& norm) { visit(norm); });
}

template <typename Visit>
void BlockSpec::for_each_linear(const Visit& visit) const {
  for (const Branch& branch : branches)
    for (const std::vector<LinearSpec>& group : branch.groups())
      for (const LinearSpec& linear : group) visit(linear);
}

template <typename Visit>
void BlockSpec::edit_each_linear(const Visit& visit) {
  const auto visit_all = [&visit](auto& mixer) {
    for (LinearSpec& linear : mixer.in) visit(linear);
    visit(mixer.out);
  };
  for (Branch& branch : branches) {
    if (auto* experts = std::get_if<ExpertsSpec>(&branch.mixer)) {
      visit(experts->router);
      if (experts->shared) visit_all(*experts->shared);
    } else if (auto* attention = std::get_if<AttentionSpec>(&branch.mixer)) {
      visit_all(*attention);
      for (LinearSpec& linear : attention->of_encoder) visit(linear);
    } else {
      visit_all(std::get<MlpSpec>(branch.mixer));
    }
  }
}

}  // namespace qlora::model
