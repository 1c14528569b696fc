#include "export/config_file.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/json_text.h"
#include "io/read_file.h"
#include "model/hugging_face_config.h"
#include "model/weight_files.h"

namespace qlora::exporting {
namespace fs = std::filesystem;

const char* dtype_name(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return "bfloat16";
  return dtype == at::kHalf ? "float16" : "float32";
}

namespace {

bool has_config(const std::string& source) {
  return fs::is_directory(source) && fs::exists(fs::path(source) / "config.json");
}

nlohmann::ordered_json config_of_gguf(const model::Architecture& architecture,
                                      const data::SpecialTokens& tokens) {
  nlohmann::ordered_json config = model::hugging_face_config(architecture);
  const auto set = [&config](const char* key, const auto& token) {
    config[key] = nullptr;  // a class of transformers may have another one
    if (token) config[key] = token->id;
  };
  set("bos_token_id", tokens.bos);
  set("eos_token_id", tokens.eos);
  set("pad_token_id", tokens.pad);
  return config;
}

}  // namespace

void require_config(const model::Architecture& architecture, const std::string& source) {
  if (!has_config(source)) model::hugging_face_config(architecture);
}

std::string config_text(const model::Architecture& architecture, const data::Tokenizer& tokenizer,
                        const std::string& source, at::ScalarType dtype,
                        const std::optional<nlohmann::ordered_json>& quantization,
                        bool tied_embeddings, bool float32_beside) {
  nlohmann::ordered_json config;
  if (has_config(source)) {
    const std::string original = (fs::path(source) / "config.json").string();
    config = io::ordered_json_from_text(io::read_bytes(original));
    config.erase("quantization_config");
    config.erase("dtype");
    config.erase(model::kFloat32Beside);
  } else {
    config = config_of_gguf(architecture, tokenizer.special_tokens());
  }
  config["torch_dtype"] = dtype_name(dtype);
  if (float32_beside) config[model::kFloat32Beside] = dtype_name(dtype);
  const bool tied = architecture.tied_embeddings && tied_embeddings;
  if (!config.contains("tie_word_embeddings") || config["tie_word_embeddings"] != tied)
    config["tie_word_embeddings"] = tied;
  // Where nothing says it, T5's outputs are scaled if its head is the embedding.
  if (architecture.has_encoder() && architecture.logit_multiplier != 1 && !tied)
    config["scale_decoder_outputs"] = true;
  if (quantization) config["quantization_config"] = *quantization;
  return io::json_text(config, 2) + "\n";
}

}  // namespace qlora::exporting
