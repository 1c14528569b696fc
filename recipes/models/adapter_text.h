// What belongs to an adapter beside its tensors: the tokenizer and the chat templates by which the
// rows that it was trained on became ids.
#pragma once

#include <memory>
#include <string>

#include "data/chat_template.h"
#include "data/example.h"
#include "data/tokenizer.h"
#include "data/tokenizers/tokenizer_config.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

// The chat templates in the adapter's directory. A checkpoint of an older version holds none: then
// the one that its run's recipe names. Empty where the model's own was trained with, as far as can
// be known.
data::ModelTemplates templates_of_adapter(const std::string& directory);

// The model's tokenizer as training had it, and where it is from.
struct ChosenTokenizer {
  std::unique_ptr<data::Tokenizer> tokenizer;
  bool is_adapters = false;
};

// The tokenizer in `adapter` (empty: there is none) where that holds one that differs from the one
// of `model`, which is told, else the model's. What cannot be read of the adapter's is told, too.
ChosenTokenizer tokenizer_with(const std::string& model, const std::string& adapter);
// With the adapter that the recipe goes on from, or where that is gone with that of its run's end.
ChosenTokenizer tokenizer_of(const Recipe& recipe);

// Writes what an adapter in a checkpoint needs beside its own files: the chat template trained
// with, where it is not the model's, and the tokenizer, if it is not the model's.
void write_texts_of_checkpoint(const std::string& directory, const data::Tokenizer& tokenizer,
                               bool is_adapters, const data::ChatTemplate* chat_template);

}  // namespace qlora::recipes
