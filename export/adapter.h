// An adapter as a directory that PEFT, vLLM and llama.cpp's converter take: PEFT's files, the
// tokenizer, and a model card.
#pragma once

#include <string>

#include "data/chat_template.h"
#include "data/tokenizer.h"
#include "lora/adapter_file.h"

namespace qlora::exporting {

// The files of such a directory, into one that exists. `chat_template`: the one trained with, null
// if there is none. `training`: of the card (model_card.h). `separate`: as write_adapter()'s.
void fill_adapter_directory(const std::string& directory, const lora::AdapterSet& adapters,
                            const lora::LoraOptions& options, const lora::AdapterBase& base,
                            const data::Tokenizer& tokenizer,
                            const data::ChatTemplate* chat_template,
                            const std::string& training = "",
                            const lora::SeparateNames* separate = nullptr);
// Complete or absent. ConfigError if `directory` holds anything, an earlier adapter too.
void write_adapter_directory(const std::string& directory, const lora::AdapterSet& adapters,
                             const lora::LoraOptions& options, const lora::AdapterBase& base,
                             const data::Tokenizer& tokenizer,
                             const data::ChatTemplate* chat_template,
                             const std::string& training = "");

}  // namespace qlora::exporting
