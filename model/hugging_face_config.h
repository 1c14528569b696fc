// The config.json of a model that was read from a GGUF file, for merged and quantized directories:
// written by its family, and read again before there is a directory, so that what a config.json
// cannot say is refused.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "model/architecture.h"

namespace qlora::model {

// ConfigError naming the family if nobody has written it, or if it would be read as another model:
// one that computes otherwise, or whose files have other tensors.
nlohmann::ordered_json hugging_face_config(const Architecture& architecture);

// The first thing in which files of the two differ, or in which they compute otherwise, the
// frequencies of RoPE included, wherever they come from; empty if there is none.
std::string first_difference_in_files(const Architecture& wanted, const Architecture& found);

}  // namespace qlora::model
