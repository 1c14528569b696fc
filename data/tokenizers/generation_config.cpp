#include "data/tokenizers/generation_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/warn_once.h"
#include "data/tokenizers/vocabulary.h"
#include "io/json.h"
#include "io/json_text.h"

namespace qlora::data {
namespace {

constexpr const char* kGeneration = "generation_config.json";

// Keys that change an answer even where the most likely token is always taken, with the number that
// changes nothing. How tokens are drawn is what --temperature and --top-p say.
constexpr std::pair<const char*, double> kUnapplied[] = {
    {"repetition_penalty", 1},
    {"encoder_repetition_penalty", 1},
    {"no_repeat_ngram_size", 0},
    {"encoder_no_repeat_ngram_size", 0},
    {"suppress_tokens", 0},
    {"begin_suppress_tokens", 0},
    {"bad_words_ids", 0},
    {"sequence_bias", 0},
    {"forced_bos_token_id", -1},
    {"forced_eos_token_id", -1},
    {"min_length", 0},
    {"min_new_tokens", 0},
    {"exponential_decay_length_penalty", 0},
    {"stop_strings", 0},
    {"guidance_scale", 1},
    {"penalty_alpha", 0},
    {"num_beams", 1},
    {"watermarking_config", 0},
};

bool changes_nothing(const nlohmann::json& value, double neutral) {
  return value.is_null() || value == false || (value.is_structured() && value.empty()) ||
         (value.is_number() && value.get<double>() == neutral);
}

}  // namespace

std::set<TokenId> generation_eos_ids(const TokenizerFiles& files, const std::string& place) {
  std::set<TokenId> ids;
  const auto file = files.find(kGeneration);
  if (file == files.end()) return ids;
  const std::string full = place + "/" + kGeneration;
  const nlohmann::json document = io::json_from_text(file->second, full);
  const auto node = io::JsonNode(document, full).find("eos_token_id");
  if (!node) return ids;
  const auto add = [&](const io::JsonNode& id) {
    ids.insert(static_cast<TokenId>(id.as_integer(0, kMaxVocabularySize - 1)));
  };
  if (!node->value().is_array())
    add(*node);
  else
    for (const io::JsonNode& id : node->elements()) add(id);
  return ids;
}

std::set<TokenId> config_eos_ids(const TokenizerFiles& files) {
  std::set<TokenId> ids;
  const auto file = files.find("config.json");
  if (file == files.end()) return ids;
  const nlohmann::json root = io::json_or_discarded(file->second);
  const auto member = [](const nlohmann::json& object, const char* key) {
    return object.is_object() && object.contains(key) ? object[key] : nlohmann::json();
  };
  nlohmann::json found = member(root, "eos_token_id");
  if (found.is_null()) found = member(member(root, "text_config"), "eos_token_id");
  if (!found.is_array()) found = nlohmann::json::array({found});
  for (const nlohmann::json& id : found)
    if (id.is_number_unsigned() && id.get<uint64_t>() < uint64_t{kMaxVocabularySize})
      ids.insert(id.get<TokenId>());
  return ids;
}

void warn_of_generation_keys(const Tokenizer& tokenizer, const std::string& place) {
  const auto file = tokenizer.files().find(kGeneration);
  if (file == tokenizer.files().end()) return;
  const nlohmann::json document = io::json_or_discarded(file->second);
  if (!document.is_object()) return;
  std::vector<std::string> named;
  for (const auto& [key, neutral] : kUnapplied)
    if (document.contains(key) && !changes_nothing(document[key], neutral))
      named.push_back(fmt::format("{} {}", key, io::json_text_in_utf8(document[key])));
  if (named.empty()) return;
  log::warning_once("{}/{}: changes answers in transformers and is not applied here: {}", place,
                    kGeneration, fmt::join(named, ", "));
}

}  // namespace qlora::data
