// A base model with what belongs to it: tokenizer, chat template, and the record by which an
// adapter knows it again.
#pragma once

#include <memory>
#include <string>

#include "data/chat_template.h"
#include "data/tokenizer.h"
#include "lora/adapter_file.h"
#include "model/causal_lm.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

struct BaseModel {
  std::string path;  // of the weights: a directory or a .gguf file
  std::unique_ptr<data::Tokenizer> tokenizer;
  std::unique_ptr<data::ChatTemplate> chat_template;  // nullptr: the model has none
  std::unique_ptr<model::CausalLm> model;
  lora::AdapterBase record;
};

// Quantized as the recipe says, on `device`. ConfigError, FormatError, IoError.
BaseModel load_base(const Recipe& recipe, c10::Device device);

}  // namespace qlora::recipes
