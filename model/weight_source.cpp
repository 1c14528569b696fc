#include "model/weight_source.h"

#include <filesystem>

#include "base/error.h"
#include "base/path_error.h"
#include "io/weight_directory.h"
#include "model/weight_files.h"

namespace qlora::model {
namespace fs = std::filesystem;

std::string config_file(const std::string& directory) {
  std::string path = (fs::path(directory) / "config.json").string();
  if (fs::exists(path)) return path;
  io::require_weights(directory);
  fail<FormatError>(
      "{} must hold config.json, which says what model its weights are of; copy it there from "
      "where "
      "the weights came from",
      directory);
}

std::optional<PackingConfig> packing_config(const io::JsonNode& config,
                                            const std::string& directory) {
  if (const auto quantization = config.find("quantization_config"))
    return PackingConfig{quantization->value(), quantization->place()};
  const fs::path beside = fs::path(directory) / "quantize_config.json";
  if (fs::exists(beside))
    return PackingConfig{io::read_json_file(beside.string()), beside.string()};
  const std::string file = io::weights_file(directory);
  if (!file.ends_with(".pt")) return std::nullopt;
  return PackingConfig{{{"quant_method", "hqq"}}, (fs::path(directory) / file).string()};
}

std::vector<std::string> names_but(const std::vector<io::TensorView>& tensors,
                                   const std::set<std::string>& read) {
  std::vector<std::string> names;
  for (const io::TensorView& tensor : tensors)
    if (!read.contains(tensor.name)) names.push_back(tensor.name);
  return names;
}

at::ScalarType matrices_dtype(const std::vector<io::TensorView>& tensors) {
  bool wide = false, half = false, bfloat16 = false;
  for (const io::TensorView& tensor : tensors) {
    if (tensor.shape.size() < 2) continue;  // norms are float32 in any file of GGUF
    wide |= tensor.dtype == io::DType::kF32 || tensor.dtype == io::DType::kF64;
    half |= tensor.dtype == io::DType::kF16;
    bfloat16 |= tensor.dtype == io::DType::kBF16;
  }
  if (wide || (half && bfloat16)) return at::kFloat;
  return half ? at::kHalf : at::kBFloat16;
}

std::unique_ptr<WeightSource> open_weights(const std::string& path) {
  if (!fs::exists(path)) fail<PathError>("{} does not exist; a model was to be read from it", path);
  if (fs::is_directory(path)) return open_hugging_face_directory(path);
  if (fs::path(path).extension() == ".gguf") return open_gguf_file(path);
  fail<ConfigError>("a model must be a Hugging Face directory or a .gguf file, found {}", path);
}

}  // namespace qlora::model
