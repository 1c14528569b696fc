// A model as data: the blocks of block_spec.h one after the other, and what lies before and behind
// them. families/ makes one from a config.json or the metadata of a GGUF file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/block_spec.h"
#include "model/rope_config.h"

namespace qlora::model {

// The decoder's blocks. Most models have one kind, Gemma 2 two: every other block has a window.
struct StackSpec {
  TensorNames prefix = {"model.layers.", "blk."};
  std::vector<BlockSpec> kinds;
  std::vector<uint8_t> kind_of;  // of each layer, an index into kinds
  NormSpec final_norm;

  int64_t num_layers() const { return static_cast<int64_t>(kind_of.size()); }
  const BlockSpec& block(int64_t layer) const { return kinds[kind_of[static_cast<size_t>(layer)]]; }
  BlockSpec& block(int64_t layer) { return kinds[kind_of[static_cast<size_t>(layer)]]; }
};

// All layers alike.
StackSpec stack_of(BlockSpec block, int64_t num_layers, NormSpec final_norm);

struct Architecture {
  std::string family;  // "llama"
  int64_t vocab_size = 0, hidden_size = 0;
  int64_t max_positions = 2048;
  TensorNames embedding = {"model.embed_tokens", "token_embd"};
  double embedding_multiplier = 1;
  StackSpec decoder;
  LinearSpec head;                   // "lm_head" [vocab_size, hidden_size]
  bool tied_embeddings = false;      // head and embedding are one matrix
  double logit_multiplier = 1;       // of the head's products
  double logit_softcap = 0;          // cap tanh(logit / cap); 0: none
  bool is_multimodal = false;        // the text part of a model that reads images, too
  std::vector<RotarySpec> rotaries;  // the different ones of its attentions

  int64_t num_layers() const { return decoder.num_layers(); }
  const BlockSpec& block(int64_t layer) const { return decoder.block(layer); }
  // "model.layers.3.self_attn.q_proj"
  std::string module(int64_t layer, const TensorNames& names) const;
  // The linear modules of all blocks, layer by layer, without the head.
  std::vector<std::string> linear_modules() const;
  // Multiplications a token of a layer's linear layers.
  int64_t numbers_of_layer(int64_t layer) const;
};

// Calls visit(module, linear) for the linear layers of all blocks, layer by layer.
template <typename Visit>
void for_each_linear(const Architecture& architecture, const Visit& visit) {
  for (int64_t layer = 0; layer < architecture.num_layers(); ++layer)
    architecture.block(layer).for_each_linear(
        [&](const LinearSpec& linear) { visit(architecture.module(layer, linear.names), linear); });
}

// The same with visit(module, norm) for the norms, the last one behind those of the blocks.
template <typename Visit>
void for_each_norm(const Architecture& architecture, const Visit& visit) {
  for (int64_t layer = 0; layer < architecture.num_layers(); ++layer)
    architecture.block(layer).for_each_norm(
        [&](const NormSpec& norm) { visit(architecture.module(layer, norm.names), norm); });
  if (architecture.decoder.final_norm.present())
    visit(architecture.decoder.final_norm.names.hugging_face, architecture.decoder.final_norm);
}

}  // namespace qlora::model
