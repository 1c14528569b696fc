// A model as a GGUF file describes it: the inverse of what the families read from one. The keys are
// made from the description alone; that they say the same is found by reading them again, before
// there is a file.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "io/gguf.h"
#include "model/architecture.h"

namespace qlora::model {

using GgufMetadata = std::vector<std::pair<std::string, io::GgufValue>>;

struct GgufDescription {
  std::string architecture;  // general.architecture: "llama"
  Architecture model;        // with the order of rows, and the context, that the file has
  // The file's head is the model's (or its embedding, where `model` says that they are no longer
  // tied) times this: llama.cpp scales no logits of T5.
  double head_factor = 1;
  GgufMetadata metadata;  // "llama.embedding_length", ...
  // RoPE's own: "rope_freqs.weight", "rope_factors_long.weight", ...
  std::vector<std::pair<std::string, std::vector<float>>> tensors;
};

// ConfigError naming the family, if GGUF has no architecture for it, or none that can say what this
// model computes. A window that the architecture does not know shortens the context to the window,
// with a warning: within it both are the same model.
GgufDescription describe_for_gguf(const Architecture& model);

}  // namespace qlora::model
