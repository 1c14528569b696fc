// What of a model decides how rows become ids (data/embedded_tokens.h).
#pragma once

#include "data/embedded_tokens.h"
#include "model/architecture.h"

namespace qlora::recipes {

inline data::ModelTokens model_tokens(const model::Architecture& architecture) {
  data::ModelTokens tokens(architecture.vocab_size);
  if (architecture.has_encoder())
    tokens.decoder = {architecture.decoder_tokens.start, architecture.decoder_tokens.pad};
  return tokens;
}

}  // namespace qlora::recipes
