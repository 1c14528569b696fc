// README.md of an export that holds a whole model, or an adapter for llama.cpp: what it is, how it
// is loaded, and what it was trained with. No path of the machine that wrote it is in there.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lora/adapter_base.h"
#include "lora/lora_options.h"

namespace qlora::exporting {

struct ExportCard {
  std::string format;            // merged | gguf | gguf-lora
  std::string type;              // of merged weights "bfloat16", of GGUF files "q4_k_m"
  std::string other_types = "";  // other_types_sentence() of gguf_model.h
  std::string merge_base;        // dequantized | original; empty: nothing was merged
  bool has_encoder = false;
  bool has_template = false;                            // a chat template
  std::vector<std::string> differences_of_ollama = {};  // sentences of modelfile.h
  std::optional<lora::LoraOptions> adapter = {};        // nothing: the base alone
  std::string training = "";                            // further sections, or empty
};

// Markdown with the front matter that the Hugging Face hub reads. Files have the names that exports
// give them: model.gguf or adapter.gguf, and Modelfile.
std::string export_card(const ExportCard& card, const lora::AdapterBase& base);

}  // namespace qlora::exporting
