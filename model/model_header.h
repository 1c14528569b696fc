// What can be known of a model without reading its weights: its shape, and how its file packs them.
#pragma once

#include <memory>
#include <string>

#include "model/weight_source.h"
#include "quant/prequantized/stored_format.h"

namespace qlora::model {

struct ModelHeader {
  std::string place;  // for messages
  Architecture architecture;
  std::unique_ptr<quant::StoredFormat> stored;  // quantization_config of config.json; null: none
  // config.json says that its experts are in MXFP4 (model/mxfp4.h), for which `stored` is null.
  bool mxfp4_experts = false;
  std::unique_ptr<WeightSource> weights;  // null: the files are not there
  // WeightSource::dtype() by its name; without the files what config.json says, or else bfloat16.
  std::string dtype = "bfloat16";
};

// From a .gguf file, a Hugging Face directory with or without its weights, a config.json, or a hub
// id whose config.json lies in the local cache. ConfigError, FormatError, IoError.
ModelHeader read_model_header(const std::string& path_or_id);

}  // namespace qlora::model
