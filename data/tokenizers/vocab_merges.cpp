#include "data/tokenizers/vocab_merges.h"

#include <sstream>

#include "base/error.h"
#include "base/utf8.h"
#include "data/tokenizers/byte_level_json.h"
#include "data/tokenizers/tokenizer_config.h"
#include "io/json_text.h"

namespace qlora::data {
namespace {

std::string family_name(const std::string& tokenizer_class, const std::string& place) {
  if (tokenizer_class.empty() || tokenizer_class.starts_with("GPT2Tokenizer")) return "gpt-2";
  if (tokenizer_class.starts_with("Qwen2Tokenizer")) return "qwen2";
  fail<FormatError>(
      "{}: vocab.json and merges.txt must belong to a GPT2Tokenizer or "
      "Qwen2Tokenizer, found the class '{}'; save a tokenizer.json with transformers",
      place, tokenizer_class);
}

nlohmann::json parse_merges(const std::string& text, const std::string& place) {
  check_utf8(text, place + "/merges.txt");
  nlohmann::json merges = nlohmann::json::array();
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || line.starts_with("#version")) continue;
    merges.push_back(line);
  }
  return merges;
}

}  // namespace

void add_tokenizer_json(TokenizerFiles& files, const std::string& place) {
  const TokenizerConfig config = parse_tokenizer_config(files, place);
  ByteLevelFamily family = byte_level_family(family_name(config.tokenizer_class, place), place);
  if (config.add_prefix_space.value_or(false)) {
    if (family.pre_tokenizer.contains("add_prefix_space")) {
      family.pre_tokenizer["add_prefix_space"] = true;
    } else {
      family.pre_tokenizer["pretokenizers"].back()["add_prefix_space"] = true;
    }
  }
  const nlohmann::json vocab = io::json_from_text(files.at("vocab.json"), place + "/vocab.json");
  const auto surrounding = [&](const char* role, bool wanted) -> std::optional<SurroundingToken> {
    const auto text = config.roles.find(role);
    if (!wanted || text == config.roles.end() || !vocab.contains(text->second)) return std::nullopt;
    return SurroundingToken{vocab[text->second], text->second};
  };
  const auto bos = surrounding("bos_token", config.add_bos_token.value_or(family.adds_bos));
  const auto eos = surrounding("eos_token", config.add_eos_token.value_or(false));
  nlohmann::json merges = parse_merges(files.at("merges.txt"), place);
  files["tokenizer.json"] = io::json_text(byte_level_document(
      family, std::move(vocab), std::move(merges), nlohmann::json::array(), bos, eos));
}

}  // namespace qlora::data
