// A model as data: the blocks of block_spec.h one after the other, and what lies before and behind
// them. families/ makes one from a config.json or the metadata of a GGUF file.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "lora/embedding_names.h"
#include "model/alibi.h"
#include "model/block_spec.h"
#include "model/relative_bias.h"
#include "model/rope_config.h"

namespace qlora::model {

// The blocks of a decoder or an encoder. Most models have one kind, Gemma 2 two: every other block
// has a window.
struct StackSpec {
  TensorNames prefix = {"model.layers.", "blk."};
  std::vector<BlockSpec> kinds;
  std::vector<uint8_t> kind_of;  // of each layer, an index into kinds
  NormSpec final_norm;
  RelativeBiasSpec relative_bias = {};  // of attentions whose shape says so (T5)

  int64_t num_layers() const { return static_cast<int64_t>(kind_of.size()); }
  const BlockSpec& block(int64_t layer) const { return kinds[kind_of[static_cast<size_t>(layer)]]; }
  BlockSpec& block(int64_t layer) { return kinds[kind_of[static_cast<size_t>(layer)]]; }
};

// All layers alike.
StackSpec stack_of(BlockSpec block, int64_t num_layers, NormSpec final_norm);

// Learned positions: a token's row of the table is its position in the document plus `offset`.
struct PositionSpec {
  TensorNames names;
  int64_t rows = 0, offset = 0;  // no rows: there are none

  bool present() const { return rows > 0; }
};

// What a token's stream begins with: norm(projection(multiplier E[token]) + P[position]), each step
// as far as it is there.
struct EmbeddingSpec {
  TensorNames names = {"model.embed_tokens", "token_embd"};
  int64_t width = 0;  // of E's rows; the hidden size, unless they are projected
  double multiplier = 1;
  LinearSpec projection = {};   // OPT-350m
  PositionSpec positions = {};  // GPT-2, GPT-Neo, OPT
  NormSpec norm = {};           // BLOOM
};

// A module, or a part of its path, that Hugging Face files call otherwise: "lm_head" and
// "embed_out".
struct FileName {
  std::string module, file;
};

// What the decoder of a model with an encoder reads: the tokens that it is to give, one behind the
// other, with `start` in front of them and `pad` in place of those that are not trained.
struct DecoderTokens {
  int32_t start = 0, pad = 0;
};

// Queries far in a document are larger, so that the softmax over many keys stays as sharp: times
// 1 + beta ln(1 + floor(position / step)) (Llama 4, Ministral 3).
struct QueryScaling {
  double beta = 0, step = 1;
};

struct Architecture {
  std::string family;  // "llama"
  int64_t vocab_size = 0, hidden_size = 0;
  int64_t max_positions = 2048;
  EmbeddingSpec embedding;
  StackSpec encoder = {};  // T5; without layers: there is none
  StackSpec decoder;
  DecoderTokens decoder_tokens = {};  // with an encoder
  LinearSpec head_projection = {};    // of what the head reads (OPT-350m)
  LinearSpec head;                    // "lm_head" [vocab_size, embedding.width]
  std::vector<FileName> file_names = {};
  bool tied_embeddings = false;  // head and embedding are one matrix
  double logit_multiplier = 1;   // of the head's products
  double logit_softcap = 0;      // cap tanh(logit / cap); 0: none
  // Tensors that files may hold beside the embedding, equal to it.
  std::vector<std::string> embedding_copies = {};
  bool is_multimodal = false;  // the text part of a model that reads images, too
  // PEFT takes all-linear, and the names of an expert's matrices among the targets, for attention,
  // router and experts of such a model alone (expert_targets.h).
  bool targets_mean_experts = false;
  std::vector<RotarySpec> rotaries;  // the different ones of its attentions
  AlibiSpec alibi = {};              // of attentions whose shape says position_bias
  QueryScaling query_scaling = {};   // of attentions that say scales_queries

  bool has_encoder() const { return encoder.num_layers() > 0; }
  // Of encoder and decoder. Layers are counted through both, the encoder's first.
  int64_t num_layers() const { return encoder.num_layers() + decoder.num_layers(); }
  const StackSpec& stack_of(int64_t layer) const {
    return layer < encoder.num_layers() ? encoder : decoder;
  }
  int64_t index_in_stack(int64_t layer) const {
    return layer < encoder.num_layers() ? layer : layer - encoder.num_layers();
  }
  const BlockSpec& block(int64_t layer) const {
    return stack_of(layer).block(index_in_stack(layer));
  }
  BlockSpec& block(int64_t layer) {
    return const_cast<BlockSpec&>(std::as_const(*this).block(layer));
  }
  // In tokens: as many positions as were learned, or any number.
  int64_t longest_document() const {
    const PositionSpec& learned = embedding.positions;
    return learned.present() ? learned.rows - learned.offset : std::numeric_limits<int64_t>::max();
  }
  // Of embedding and head.
  lora::EmbeddingNames embedding_names() const {
    return {embedding.names.hugging_face, head.names.hugging_face};
  }
  // "model.layers.3.self_attn.q_proj"
  std::string module(int64_t layer, const TensorNames& names) const;
  // The linear modules, layer by layer, without the head.
  std::vector<std::string> linear_modules() const;
};

// Calls visit(module, linear) for the linear layers but the head: the embedding's projection, those
// of all blocks, layer by layer, and the head's projection.
template <typename Visit>
void for_each_linear(const Architecture& architecture, const Visit& visit) {
  const auto visit_outer = [&](const LinearSpec& linear) {
    if (linear.present()) visit(linear.names.hugging_face, linear);
  };
  visit_outer(architecture.embedding.projection);
  for (int64_t layer = 0; layer < architecture.num_layers(); ++layer)
    architecture.block(layer).for_each_linear(
        [&](const LinearSpec& linear) { visit(architecture.module(layer, linear.names), linear); });
  visit_outer(architecture.head_projection);
}

// The same with visit(module, norm) for the norms: the embedding's, those of the blocks, those
// behind the stacks.
template <typename Visit>
void for_each_norm(const Architecture& architecture, const Visit& visit) {
  if (const NormSpec& first = architecture.embedding.norm; first.present())
    visit(first.names.hugging_face, first);
  for (int64_t layer = 0; layer < architecture.num_layers(); ++layer)
    architecture.block(layer).for_each_norm(
        [&](const NormSpec& norm) { visit(architecture.module(layer, norm.names), norm); });
  for (const StackSpec* stack : {&architecture.encoder, &architecture.decoder})
    if (stack->final_norm.present()) visit(stack->final_norm.names.hugging_face, stack->final_norm);
}

}  // namespace qlora::model
