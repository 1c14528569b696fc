#include "model/model_header.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "model/families/family.h"
#include "model/hub_cache.h"
#include "model/stored_quantization.h"
#include "quant/frozen_size.h"

namespace qlora::model {
namespace {
namespace fs = std::filesystem;

// Whether any weights lie there; a directory that holds some of its files is for open_weights to
// complain about.
bool has_weights(const fs::path& directory) {
  return std::ranges::any_of(fs::directory_iterator(directory), [](const auto& entry) {
    return entry.path().extension() == ".safetensors" ||
           entry.path().filename() == "model.safetensors.index.json";
  });
}

}  // namespace

ModelHeader read_model_header(const std::string& path_or_id) {
  const fs::path path = resolve_model_path(path_or_id);
  ModelHeader header;
  header.place = path.string();
  const bool is_directory = fs::is_directory(path);
  if (is_directory ? has_weights(path) : path.extension() != ".json") {
    header.weights = open_weights(header.place);
    header.architecture = header.weights->architecture();
    header.dtype = quant::dense_format(header.weights->dtype());
    if (!is_directory) return header;
  }
  const std::string file = is_directory ? (path / "config.json").string() : header.place;
  const nlohmann::json document = io::read_json_file(file);
  const io::JsonNode json(document, file);
  if (!header.weights) {
    header.architecture = read_architecture(json);
    const std::string said = json.string_or("dtype", json.string_or("torch_dtype", ""));
    if (said == "float16" || said == "float32") header.dtype = said;
  }
  if (const auto quantization = json.find("quantization_config"))
    header.stored = read_quantization_config(*quantization);
  return header;
}

}  // namespace qlora::model
