#include "model/weight_source.h"

#include <filesystem>

#include "base/ascii_case.h"
#include "base/error.h"
#include "base/path_error.h"
#include "base/warn_once.h"
#include "io/json_text.h"
#include "io/weight_directory.h"
#include "model/weight_files.h"

namespace qlora::model {
namespace {
namespace fs = std::filesystem;

// The names that one setting goes by in configs of GPTQ and AWQ.
const std::vector<std::vector<const char*>>& settings_said_twice() {
  static const std::vector<std::vector<const char*>> settings = {
      {"quant_method"}, {"bits", "w_bit"},     {"group_size", "q_group_size"},
      {"sym"},          {"zero_point"},        {"desc_act"},
      {"version"},      {"checkpoint_format"}, {"pack_dtype"}};
  return settings;
}

std::optional<io::JsonNode> first_of(const io::JsonNode& config,
                                     const std::vector<const char*>& keys) {
  for (const char* key : keys)
    if (auto node = config.find(key)) return node;
  return std::nullopt;
}

std::string text_of(const io::JsonNode& node) {
  return ascii_lower_case(io::json_text(node.value()));
}

void warn_where_they_differ(const io::JsonNode& used, const io::JsonNode& beside) {
  for (const std::vector<const char*>& keys : settings_said_twice()) {
    const auto one = first_of(used, keys), other = first_of(beside, keys);
    if (one && other && text_of(*one) != text_of(*other))
      log::warning_once("{} is {}, and {} is {}; the former is used, as transformers does",
                        one->place(), io::json_text(one->value()), other->place(),
                        io::json_text(other->value()));
  }
}

// What AutoGPTQ, GPTQModel or AutoAWQ wrote into a file of its own.
std::optional<PackingConfig> packing_config_beside(const std::string& directory) {
  for (const char* name : {"quantize_config.json", "quant_config.json"}) {
    const fs::path path = fs::path(directory) / name;
    if (!fs::exists(path)) continue;
    PackingConfig beside{io::read_json_file(path.string()), path.string()};
    const auto has = [&](const char* key) { return beside.config.contains(key); };
    // Other programs write a quant_config.json that says nothing of these formats, but may have
    // "bits" too.
    if (name == std::string_view("quantize_config.json") || has("w_bit") || has("q_group_size") ||
        has("zero_point") || has("quant_method"))
      return beside;
  }
  return std::nullopt;
}

// Nothing of a file that config.json overrules is used.
void compare_with_file_beside(const io::JsonNode& used, const std::string& directory) {
  try {
    const std::optional<PackingConfig> beside = packing_config_beside(directory);
    if (beside && beside->config.is_object() && used.value().is_object())
      warn_where_they_differ(used, io::JsonNode(beside->config, beside->place));
  } catch (const Error&) {
    // What is not read need not be readable.
  }
}

}  // namespace

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
  if (const auto quantization = config.find("quantization_config")) {
    compare_with_file_beside(*quantization, directory);
    return PackingConfig{quantization->value(), quantization->place()};
  }
  if (auto beside = packing_config_beside(directory)) return beside;
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
