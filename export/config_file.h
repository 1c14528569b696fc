// config.json of an exported model.
#pragma once

#include <ATen/core/Tensor.h>

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "data/tokenizer.h"
#include "model/architecture.h"

namespace qlora::exporting {

const char* dtype_name(at::ScalarType dtype);

// ConfigError of model::hugging_face_config() where `source` has no config.json: nothing need be
// computed that cannot be written.
void require_config(const model::Architecture& architecture, const std::string& source);

// The one of `source`, where the base came from, or else one that says the same; with the dtype,
// and the quantization if there is one. `tied_embeddings`: whether the weights beside it have one
// matrix for head and embedding where the source has. `float32_beside`: whether a file beside them
// has tensors in float32 (model::kFloat32Beside).
std::string config_text(const model::Architecture& architecture, const data::Tokenizer& tokenizer,
                        const std::string& source, at::ScalarType dtype,
                        const std::optional<nlohmann::ordered_json>& quantization,
                        bool tied_embeddings, bool float32_beside = false);

}  // namespace qlora::exporting
