#include "model/model_header.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "io/weight_directory.h"
#include "model/families/family.h"
#include "model/hub_cache.h"
#include "model/weight_files.h"
#include "quant/frozen_size.h"

namespace qlora::model {
namespace fs = std::filesystem;

ModelHeader read_model_header(const std::string& path_or_id) {
  const fs::path path = resolve_model_path(path_or_id);
  ModelHeader header;
  header.place = path.string();
  const bool is_directory = fs::is_directory(path);
  // A directory that holds some of its files is for open_weights to complain about.
  if (is_directory ? io::holds_weights(header.place) : path.extension() != ".json") {
    header.weights = open_weights(header.place);
    header.architecture = header.weights->architecture();
    header.dtype = quant::dense_format(header.weights->dtype());
    if (!is_directory) return header;
  }
  const std::string file = is_directory ? config_file(header.place) : header.place;
  const nlohmann::json document = io::read_json_file(file);
  const io::JsonNode json(document, file);
  if (!header.weights) {
    header.architecture = read_architecture(json);
    const std::string said = json.string_or("dtype", json.string_or("torch_dtype", ""));
    if (said == "float16" || said == "float32") header.dtype = said;
  }
  if (const auto quantization = json.find("quantization_config")) {
    header.stored = quant::make_stored_format(*quantization);
    header.mxfp4_experts = quantization->string_or("quant_method", "") == "mxfp4";
  }
  return header;
}

}  // namespace qlora::model
