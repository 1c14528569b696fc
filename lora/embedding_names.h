// How a model calls its input and its output embedding.
#pragma once

#include <string>

namespace qlora::lora {

struct EmbeddingNames {
  std::string embedding = "model.embed_tokens", head = "lm_head";  // module paths
};

}  // namespace qlora::lora
