// Which of GGUF's pre-tokenizers a tokenizer.json has.
#include <array>

#include "data/tokenizers/byte_level_json.h"

namespace qlora::data {
namespace {
using nlohmann::json;

// Of families that read text alike the one that llama.cpp has for most models comes first.
constexpr std::array<const char*, 16> kNames = {
    "llama-bpe",   "qwen2",          "gpt-2",     "smollm",    "olmo",  "tekken",
    "gpt-4o",      "smaug-bpe",      "stablelm2", "command-r", "bloom", "falcon",
    "deepseek-v3", "deepseek-coder", "default",   "falcon3"};

// What decides the cuts: steps in their order, each with all its options spelled out.
void append_steps(const json& step, json& steps) {
  if (step.is_null()) return;
  const std::string type = step.value("type", "");
  if (type == "Sequence") {
    const json& parts = step.contains("pretokenizers") ? step["pretokenizers"]
                                                       : step.value("normalizers", json::array());
    for (const json& part : parts) append_steps(part, steps);
  } else if (type == "ByteLevel") {
    steps.push_back({type, step.value("add_prefix_space", true), step.value("use_regex", true)});
  } else if (type == "Digits") {
    steps.push_back({type, step.value("individual_digits", false)});
  } else if (type == "Punctuation") {
    steps.push_back({type, step.value("behavior", "Isolated")});
  } else if (type == "Split") {
    steps.push_back({type, step.value("pattern", json()), step.value("behavior", ""),
                     step.value("invert", false)});
  } else {
    steps.push_back({type, step});
  }
}

json steps_of(const json& section) {
  json steps = json::array();
  append_steps(section, steps);
  return steps;
}

// Falcon's own files; llama.cpp cuts the same by patterns.
const json& falcon_steps() {
  static const json steps =
      steps_of({{"type", "Sequence"},
                {"pretokenizers",
                 {{{"type", "Punctuation"}, {"behavior", "Contiguous"}},
                  {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}},
                  {{"type", "Digits"}, {"individual_digits", false}},
                  {{"type", "Split"},
                   {"pattern", {{"Regex", "[0-9][0-9][0-9]"}}},
                   {"behavior", "Isolated"},
                   {"invert", false}}}}});
  return steps;
}

}  // namespace

std::optional<std::string> byte_level_pre(const json& document) {
  const json pre_tokenizer = steps_of(document.value("pre_tokenizer", json()));
  const json normalizer = steps_of(document.value("normalizer", json()));
  const json model = document.value("model", json::object());
  const bool ignores_merges = model.value("ignore_merges", false);
  if (pre_tokenizer == falcon_steps() && normalizer.empty()) return "falcon";
  // A vocabulary whose words are all reached by merges does not care for ignore_merges.
  for (const bool exact : {true, false})
    for (const char* name : kNames) {
      const ByteLevelFamily family = byte_level_family(name, "tokenizer.json");
      if (exact && family.ignore_merges != ignores_merges) continue;
      if (steps_of(family.pre_tokenizer) == pre_tokenizer &&
          steps_of(family.normalizer) == normalizer)
        return name;
    }
  return std::nullopt;
}

}  // namespace qlora::data
