#include "data/tokenizers/unigram_json.h"

#include <algorithm>
#include <string_view>

#include "base/base64.h"
#include "data/tokenizers/metaspace.h"

namespace qlora::data {
namespace {
using nlohmann::json;

json sequence(const char* list, json steps) {
  return {{"type", "Sequence"}, {list, std::move(steps)}};
}

json normalizer(const UnigramVocabulary& vocabulary) {
  json steps = json::array();
  if (!vocabulary.charsmap.empty())
    steps.push_back(
        {{"type", "Precompiled"}, {"precompiled_charsmap", to_base64(vocabulary.charsmap)}});
  if (vocabulary.merges_blanks) {
    steps.push_back({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}});
    steps.push_back({{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", " "}});
  }
  if (vocabulary.adds_blank) steps.push_back({{"type", "Prepend"}, {"prepend", kMetaspace}});
  return steps.empty() ? json() : sequence("normalizers", std::move(steps));
}

// Pieces that go on over a blank need the whole text at once.
bool are_words(const std::vector<std::pair<std::string, float>>& pieces) {
  return std::ranges::none_of(pieces, [](const auto& piece) {
    return piece.first.find(kMetaspace, 1) != std::string::npos;
  });
}

json metaspace(const char* prepend, bool split) {
  return {{"type", "Metaspace"},
          {"replacement", kMetaspace},
          {"prepend_scheme", prepend},
          {"split", split}};
}

json decoder(const UnigramVocabulary& vocabulary) {
  json blanks = metaspace(vocabulary.adds_blank ? "always" : "never", true);
  if (!vocabulary.byte_fallback) return blanks;
  json steps = json::array();
  steps.push_back({{"type", "ByteFallback"}});
  steps.push_back(std::move(blanks));
  return sequence("decoders", std::move(steps));
}

// The step itself, or those of a sequence.
std::vector<json> steps_of(const json& step, const char* list) {
  if (!step.is_object()) return {};
  if (step.value("type", "") != "Sequence") return {step};
  std::vector<json> steps;
  for (const json& inner : step.value(list, json::array()))
    for (json& one : steps_of(inner, list)) steps.push_back(std::move(one));
  return steps;
}

bool writes_blanks(const json& step) {
  const std::string type = step.value("type", "");
  if (type == "Strip" || type == "Prepend") return true;
  if (type != "Replace") return false;
  const json pattern = step.value("pattern", json());
  return pattern == json::object({{"Regex", " {2,}"}}) ||
         pattern == json::object({{"String", " "}});
}

}  // namespace

json unigram_document(const UnigramVocabulary& vocabulary, json added_tokens,
                      const std::optional<SurroundingToken>& bos,
                      const std::optional<SurroundingToken>& eos) {
  json document = {{"version", "1.0"},
                   {"truncation", nullptr},
                   {"padding", nullptr},
                   {"normalizer", normalizer(vocabulary)},
                   {"pre_tokenizer", metaspace("never", are_words(vocabulary.pieces))},
                   {"post_processor", post_processor(bos, eos)},
                   {"decoder", decoder(vocabulary)}};
  document["added_tokens"] = std::move(added_tokens);
  json& model = document["model"];
  model = {{"type", "Unigram"},
           {"unk_id", vocabulary.unknown_id},
           {"byte_fallback", vocabulary.byte_fallback}};
  json& pieces = model["vocab"] = json::array();
  for (const auto& [piece, score] : vocabulary.pieces) {
    json entry = json::array();
    entry.push_back(piece);
    entry.push_back(score);
    pieces.push_back(std::move(entry));
  }
  return document;
}

std::optional<std::string> unigram_charsmap(const json& document) {
  std::string charsmap;
  for (const json& step : steps_of(document.value("normalizer", json()), "normalizers")) {
    if (step.value("type", "") == "Precompiled") {
      const auto bytes = from_base64(step.value("precompiled_charsmap", ""));
      if (!bytes || !charsmap.empty()) return std::nullopt;
      charsmap = *bytes;
    } else if (!writes_blanks(step)) {
      return std::nullopt;
    }
  }
  for (const json& step : steps_of(document.value("pre_tokenizer", json()), "pretokenizers")) {
    const std::string type = step.value("type", "");
    if (type != "Metaspace" && type != "WhitespaceSplit") return std::nullopt;
  }
  return charsmap;
}

}  // namespace qlora::data
