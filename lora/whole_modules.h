// Which parameters are trained whole (lora.modules_to_save) or by the row
// (lora.trainable_token_indices), and what becomes of an input and an output embedding that share
// one matrix. Names match as in PEFT: a module is trained whole if its path ends in one of the
// names, so that "norm" is every norm and "model.norm" the last one alone.
//
// Tied embeddings, as PEFT 0.21 has them:
//   modules_to_save           ensure_weight_tying: one trained matrix for both; else the named one
//                             is a copy apart, and the other stays as it was
//   trainable_token_indices   of the input embedding: always for both, unless the output embedding
//                             has other tokens of its own. An adapter of the output embedding is
//                             added to what its trained tokens give
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lora/embedding_names.h"
#include "lora/lora_options.h"
#include "lora/trained_tensor.h"

namespace qlora::lora {

// Names the input embedding in trainable_token_indices whatever the model calls it, as does a bare
// list of tokens.
constexpr const char* kAnyEmbedding = "embed_tokens";

bool is_trained_whole(const LoraOptions& options, const std::string& module);

// Of a norm: its weight with the module, its bias also by lora.bias all, as in PEFT.
bool trains_norm_weight(const LoraOptions& options, const std::string& module,
                        const NormWeight& norm);
bool trains_norm_bias(const LoraOptions& options, const std::string& module,
                      const NormWeight& norm);

// What is trained of the embeddings.
struct TrainedEmbeddings {
  bool whole_embedding = false, whole_head = false;
  std::vector<int64_t> embedding_ids, head_ids;
  bool shared = false;  // head and embedding are tied and stay so: one trained tensor for both
};

// `tied`: the model's head and embedding are one matrix, of `vocab` rows. ConfigError if ids repeat
// or are no tokens, a module is both trained whole and by the row, or tied ones cannot be kept so.
TrainedEmbeddings trained_embeddings(const LoraOptions& options, bool tied, int64_t vocab,
                                     const EmbeddingNames& names = {});

// For a head that lora.targets choose: ConfigError if tokens or tying are asked for that it cannot
// have beneath an adapter. The tokens that it shares with the embedding it has, as in PEFT.
void check_adapted_head(const LoraOptions& options, const TrainedEmbeddings& trained, bool tied,
                        const EmbeddingNames& names = {});

// ConfigError if a name of modules_to_save matches nothing, or a linear module by part of its name.
// `linear`: paths of the linear modules; `others`: of norms and embedding.
void check_whole_modules(const LoraOptions& options, const std::vector<std::string>& linear,
                         const std::vector<std::string>& others);

// For the log: what happens to the tied embeddings of the model; empty if nothing does.
std::string tying_sentence(const LoraOptions& options, const TrainedEmbeddings& trained, bool tied,
                           bool adapter_on_head);

// For the log: which programs refuse such an adapter; empty if none does.
std::string refusal_sentence(const LoraOptions& options, const EmbeddingNames& names = {});

}  // namespace qlora::lora
