// The trained model as a GGUF file for llama.cpp and Ollama: adapters merged into the base as for a
// Hugging Face directory (merged.h), each tensor then in the type that llama.cpp's quantizer gives
// it (gguf_types.h), with the tokenizer and the chat template.
#pragma once

#include <string>

#include "data/chat_template.h"
#include "data/tokenizer.h"
#include "export/gguf_types.h"
#include "model/causal_lm.h"
#include "model/weight_source.h"

namespace qlora::exporting {

// Writes the file, one tensor in memory at a time, in fp32 and as it is stored. `base`: what
// the model was made of (gguf_origin.h). `chat_template`: the one trained with, null if there is
// none. Every tensor that was not trained is the original's where there is one. ConfigError of
// describe_for_gguf() and gguf_tokenizer_metadata(); Error if a merged weight is not finite (as
// f16: too large).
void write_gguf_model(const std::string& path, const model::CausalLm& model,
                      const data::Tokenizer& tokenizer, const data::ChatTemplate* chat_template,
                      const std::string& base, const GgufType& type,
                      model::WeightSource* original = nullptr);

// How many matrices of the file have another type than they would have if their rows filled whole
// blocks, and which: a sentence; empty if there are none.
std::string other_types_sentence(const model::CausalLm& model, const GgufType& type);

}  // namespace qlora::exporting
