// What one family of architectures adds to the decoder: how its two file formats describe the shape
// and name the tensors. A new family is one file here and a line in family.cpp.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "io/gguf.h"
#include "io/json.h"
#include "model/model_config.h"

namespace qlora::model {

struct Family {
  std::string name;                      // "llama"
  std::vector<std::string> model_types;  // of config.json
  std::vector<std::string> gguf_architectures;

  // FormatError naming file and key.
  ModelConfig (*from_hugging_face)(const io::JsonNode& config);
  ModelConfig (*from_gguf)(const io::GgufFile& file);
  // config.json of an exported model, whose dtype is `dtype`: what transformers needs to build it.
  nlohmann::ordered_json (*to_hugging_face)(const ModelConfig& config, const std::string& dtype);
  // "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight".
  std::string (*gguf_name)(const std::string& hugging_face_name);
  // Whether GGUF stores the rows of this tensor in RoPE's interleaved order (formats spec 9.7).
  bool (*interleaved_in_gguf)(const std::string& hugging_face_name);
};

// FormatError that lists the known ones.
const Family& family_of_model_type(const std::string& model_type, const std::string& place);
const Family& family_of_gguf(const std::string& architecture, const std::string& place);
const Family& family_named(const std::string& name);

}  // namespace qlora::model
