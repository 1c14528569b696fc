// The keys of tokenizer_config.json that could change tokens or text: those that are read
// (tokenizer_config.h), those that change nothing, and those that must have one value.
#pragma once

#include "io/json.h"

namespace qlora::data {

// FormatError naming a key that asks for other tokens than this version makes; a warning, once a
// file, that names the keys that are not known.
void check_tokenizer_config_keys(const io::JsonNode& config);

}  // namespace qlora::data
