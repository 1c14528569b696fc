// The two kinds of files that open_weights() opens.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "io/json.h"
#include "io/tensor_view.h"
#include "model/weight_source.h"

namespace qlora::model {

std::unique_ptr<WeightSource> open_hugging_face_directory(const std::string& directory);
std::unique_ptr<WeightSource> open_gguf_file(const std::string& path);

// The path of a directory's config.json. FormatError if it is not there; it says what to do.
std::string config_file(const std::string& directory);

// What says how the layers of a directory are packed, where they may be, and where it says so.
struct PackingConfig {
  nlohmann::json config;
  std::string place;
};
// The quantization_config of its config.json, which `config` is, or what AutoGPTQ or
// AutoAWQ wrote beside it (quantize_config.json, quant_config.json), which is warned of where both
// are there and differ. hqq's own file says all by itself: of that the config names the format
// alone.
std::optional<PackingConfig> packing_config(const io::JsonNode& config,
                                            const std::string& directory);

// In the config.json of a directory that this program made of a GGUF file with tensors in float32
// beside its matrices: the type of those here. Of no meaning where torch_dtype says another type:
// then another tool has saved the weights since.
inline constexpr const char* kFloat32Beside = "qlora_float32_beside";
// What such a directory then holds: those tensors under their names as they were, in the
// safetensors format, which the files of weights have in the type of the matrices, so that every
// tool reads them. The name ends so that no other tool takes it for weights.
inline constexpr const char* kFloat32Tensors = "float32_tensors.qlora";

// The tensors of a file that are not among those that were read.
std::vector<std::string> names_but(const std::vector<io::TensorView>& tensors,
                                   const std::set<std::string>& read);
// WeightSource::dtype() of these tensors.
at::ScalarType matrices_dtype(const std::vector<io::TensorView>& tensors);

}  // namespace qlora::model
