#include "export/config_file.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json_text.h"
#include "io/read_file.h"
#include "model/families/family.h"

namespace qlora::exporting {
namespace fs = std::filesystem;

const char* dtype_name(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return "bfloat16";
  return dtype == at::kHalf ? "float16" : "float32";
}

namespace {

nlohmann::ordered_json config_of_gguf(const model::Architecture& architecture,
                                      const std::string& dtype) {
  const model::Family& family = model::family_named(architecture.family);
  if (!family.to_hugging_face)
    fail<ConfigError>(
        "a config.json of a {} model from a GGUF file is not written by this version; export the "
        "adapter (qlora export --format adapter), or start from the model's Hugging Face directory",
        architecture.family);
  return family.to_hugging_face(architecture, dtype);
}

}  // namespace

std::string config_text(const model::Architecture& architecture, const data::Tokenizer& tokenizer,
                        const std::string& source, at::ScalarType dtype,
                        const std::optional<nlohmann::ordered_json>& quantization,
                        bool tied_embeddings) {
  nlohmann::ordered_json config;
  const fs::path original = fs::path(source) / "config.json";
  if (fs::is_directory(source) && fs::exists(original)) {
    config = io::ordered_json_from_text(io::read_bytes(original.string()));
    config.erase("quantization_config");
    config.erase("dtype");
    config["torch_dtype"] = dtype_name(dtype);
  } else {
    config = config_of_gguf(architecture, dtype_name(dtype));
    const data::SpecialTokens& special = tokenizer.special_tokens();
    if (special.bos) config["bos_token_id"] = special.bos->id;
    if (special.eos) config["eos_token_id"] = special.eos->id;
    if (special.pad) config["pad_token_id"] = special.pad->id;
  }
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
