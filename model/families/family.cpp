#include "model/families/family.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "base/warn_once.h"
#include "io/gguf_kind.h"
#include "model/families/families.h"
#include "model/families/later_families.h"

namespace qlora::model {
const std::vector<Family>& families() {
  static const std::vector<Family> all = {
      llama_family(),     mistral_family(),    ministral_family(),  ministral3_family(),
      qwen2_family(),     qwen3_family(),      smollm3_family(),    granite_family(),
      olmo_family(),      olmo2_family(),      olmo3_family(),      gemma_family(),
      gemma2_family(),    gemma3_family(),     phi3_family(),       glm_family(),
      glm4_family(),      stablelm_family(),   starcoder2_family(), phi_family(),
      cohere_family(),    cohere2_family(),    gpt2_family(),       gpt_neo_family(),
      gptj_family(),      gpt_neox_family(),   opt_family(),        bloom_family(),
      falcon_family(),    mpt_family(),        mixtral_family(),    qwen2_moe_family(),
      qwen3_moe_family(), granitemoe_family(), olmoe_family(),      gpt_oss_family(),
      t5_family(),        mt5_family(),        arcee_family()};
  return all;
}

namespace {

const Family& find(std::vector<std::string> Family::*names, const std::string& name,
                   const std::string& place, const char* what) {
  std::vector<std::string> known;
  for (const Family& family : families()) {
    if (std::ranges::count(family.*names, name)) return family;
    known.insert(known.end(), (family.*names).begin(), (family.*names).end());
  }
  fail<FormatError>("{}: {} '{}' is not supported; this version knows {}", place, what, name,
                    fmt::join(known, ", "));
}

// `missing`: what models of that name need that is not computed here; empty: it is not known.
void refuse_later(const std::string& missing, const std::string& name, const std::string& place,
                  const char* what) {
  if (!missing.empty())
    fail<FormatError>("{}: {} '{}' is not supported: it needs {}, which this version does not have",
                      place, what, name, missing);
}

}  // namespace

const Family& family_of_model_type(const std::string& model_type, const std::string& place) {
  refuse_later(missing_for_model_type(model_type), model_type, place, "the model_type");
  return find(&Family::model_types, model_type, place, "the model_type");
}

const Family& family_of_gguf(const std::string& architecture, const std::string& place) {
  if (architecture == "t5encoder")
    fail<FormatError>(
        "{}: the file holds the encoder of a T5 alone (t5encoder); give one of the whole model "
        "(t5)",
        place);
  refuse_later(missing_for_gguf(architecture), architecture, place, "the architecture");
  return find(&Family::gguf_architectures, architecture, place, "the architecture");
}

const Family& family_named(const std::string& name) {
  for (const Family& family : families())
    if (family.name == name) return family;
  fail<Error>("there is no model family '{}'", name);
}

namespace {

// A model of text and images keeps its text model under a name of its own, as does PEFT. Known of
// text models whose modules lie right below "model.".
void place_in_multimodal(Architecture& a, const std::string& place) {
  if (a.decoder.prefix.hugging_face != "model.layers.")
    fail<FormatError>(
        "{} is of the model family {}, which this version does not read as part of a model of text "
        "and images; give the text model in a directory of its own",
        place, a.family);
  const auto within = [](TensorNames& names) {
    names.hugging_face.replace(0, std::string("model.").size(), "model.language_model.");
  };
  within(a.embedding.names);
  within(a.decoder.prefix);
  within(a.decoder.final_norm.names);
  a.is_multimodal = true;
}

}  // namespace

Architecture read_architecture(const io::JsonNode& config) {
  const auto text = config.find("text_config");
  const io::JsonNode& read = text ? *text : config;
  ConfigReader reader(read);
  Architecture architecture =
      family_of_model_type(read.at("model_type").as_string(), read.place()).read(reader);
  reader.finish();
  if (!text) return architecture;
  place_in_multimodal(architecture, read.place());
  log::warning_once("{}: the model reads images, too; its text part alone is read here",
                    config.place());
  return architecture;
}

Architecture read_architecture(const io::GgufFile& file) {
  io::require_gguf_model(file);
  ConfigReader reader(file);
  Architecture architecture =
      family_of_gguf(file.text("general.architecture"), file.path()).read(reader);
  reader.finish();
  return architecture;
}

}  // namespace qlora::model
