// README.md of an adapter: what it is, which base it belongs to, how transformers and PEFT load the
// two, and what it was trained with. No path of the machine that trained it is in there.
#pragma once

#include <string>

#include "lora/adapter_file.h"

namespace qlora::exporting {

// Markdown with the front matter that the Hugging Face hub reads. The base is named by its hub id,
// or by the name of its file or directory, and a base that the run wrote by the model that it was
// made from; the call that loads it has the quantization of the
// training. `has_encoder`: of the base, AdapterSet::has_encoder(). `training`: further sections, or
// empty.
std::string model_card(const lora::LoraOptions& options, const lora::AdapterBase& base,
                       bool has_encoder, const std::string& training);

}  // namespace qlora::exporting
