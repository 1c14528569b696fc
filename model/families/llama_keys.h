// The keys of a Llama model's config.json and GGUF metadata that could change what it computes:
// those that are read elsewhere, those that change nothing, and those that must have one value.
#pragma once

#include "io/gguf.h"
#include "io/json.h"
#include "model/model_config.h"

namespace qlora::model {

// FormatError naming a key whose value asks for something that this version does not compute; a
// warning, once a file, that names the keys that are not known.
void check_llama_keys(const io::JsonNode& config);
// `config`: as it was read from the file. Also compares keys with each other and with the tensors.
void check_llama_keys(const io::GgufFile& file, const ModelConfig& config);

}  // namespace qlora::model
