#include "data/tokenizers/byte_level_json.h"

#include <fmt/ranges.h>

#include <map>
#include <vector>

#include "base/error.h"
#include "data/tokenizers/pre_tokenizer.h"

namespace qlora::data {
namespace {

using nlohmann::json;

// The patterns are those of the families' own tokenizer.json files, or llama.cpp's where it cuts on
// its own terms.
const char kLlama3[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char kQwen2[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char kTekken[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char kGpt4o[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char kBloom[] = R"( ?[^(\s|.,!?…。，、।۔،)]+)";
const char kDeepseekV3[] =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// One split after the other, each match a piece of its own; then every byte becomes its letter.
json splits(const std::vector<std::string>& patterns) {
  json steps = json::array();
  for (const std::string& pattern : patterns) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", pattern}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"},
                   {"add_prefix_space", false},
                   {"trim_offsets", false},
                   {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

json gpt2_split() {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", true}};
}

// Each digit alone, then GPT-2's split.
json digits_then_gpt2() {
  return {{"type", "Sequence"},
          {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, gpt2_split()}}};
}

const json& nfc() {
  static const json normalizer = {{"type", "NFC"}};
  return normalizer;
}

std::map<std::string, ByteLevelFamily> make_families() {
  const ByteLevelFamily gpt2{gpt2_split()}, gpt2_nfc{gpt2_split(), nfc()};
  const ByteLevelFamily digits{digits_then_gpt2()};
  const ByteLevelFamily llama3{splits({kLlama3}), nullptr, true, true};
  const ByteLevelFamily llama3_split{splits({kLlama3})};
  const ByteLevelFamily qwen2{splits({kQwen2}), nfc()};
  const ByteLevelFamily gpt4o{splits({kGpt4o})};
  return {
      {"gpt-2", gpt2},
      {"phi-2", gpt2},
      {"mpt", gpt2_nfc},
      {"olmo", gpt2_nfc},
      {"starcoder", digits},
      {"smollm", digits},
      {"refact", digits},
      {"codeshell", digits},
      {"command-r", {digits_then_gpt2(), nfc()}},
      {"llama-bpe", llama3},
      {"llama3", llama3},
      {"llama-v3", llama3},
      {"falcon3", llama3},
      {"smaug-bpe", llama3_split},
      {"dbrx", llama3_split},
      {"glm4", llama3_split},
      {"chatglm-bpe", llama3_split},
      {"qwen2", qwen2},
      {"deepseek-r1-qwen", qwen2},
      {"stablelm2", {splits({kQwen2})}},
      {"tekken", {splits({kTekken}), nullptr, true, true}},
      {"gpt-4o", gpt4o},
      {"llama4", gpt4o},
      {"bloom", {splits({kBloom})}},
      {"falcon", {splits({R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2Pattern, "[0-9][0-9][0-9]"})}},
      {"deepseek-v3", {splits({R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+", kDeepseekV3})}},
      {"deepseek-coder",
       {splits(
           {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", "[一-龥ࠀ-一가-퟿]+", R"(\p{N})"})}},
      {"default",
       {splits({R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Pattern, R"(\p{N}+)", "[0-9][0-9][0-9]"})}},
  };
}

}  // namespace

ByteLevelFamily byte_level_family(const std::string& pre, const std::string& place) {
  static const std::map<std::string, ByteLevelFamily> families = make_families();
  const auto family = families.find(pre);
  if (family != families.end()) return family->second;
  std::vector<std::string> names;
  for (const auto& entry : families) names.push_back(entry.first);
  fail<FormatError>("{}: tokenizer.ggml.pre must be one of {}, found '{}'", place,
                    fmt::join(names, ", "), pre);
}

json post_processor(const std::optional<SurroundingToken>& bos,
                    const std::optional<SurroundingToken>& eos) {
  json single = json::array(), pair, specials = json::object();
  const auto add = [&](json& list, const std::optional<SurroundingToken>& token, int type) {
    if (!token) return;
    list.push_back({{"SpecialToken", {{"id", token->text}, {"type_id", type}}}});
    specials[token->text] = {{"id", token->text}, {"ids", {token->id}}, {"tokens", {token->text}}};
  };
  add(single, bos, 0);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add(single, eos, 0);
  pair = single;
  add(pair, bos, 1);
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  add(pair, eos, 1);
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", specials}};
}

json byte_level_document(const ByteLevelFamily& family, json vocab, json merges, json added_tokens,
                         const std::optional<SurroundingToken>& bos,
                         const std::optional<SurroundingToken>& eos) {
  const json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", true},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  json document = {{"version", "1.0"},
                   {"truncation", nullptr},
                   {"padding", nullptr},
                   {"normalizer", family.normalizer},
                   {"decoder", byte_level},
                   {"post_processor", byte_level},
                   {"pre_tokenizer", family.pre_tokenizer}};
  document["added_tokens"] = std::move(added_tokens);
  if (bos || eos) document["post_processor"] = post_processor(bos, eos);
  json& model = document["model"];
  model = {{"type", "BPE"},
           {"dropout", nullptr},
           {"unk_token", nullptr},
           {"continuing_subword_prefix", nullptr},
           {"end_of_word_suffix", nullptr},
           {"fuse_unk", false},
           {"byte_fallback", false},
           {"ignore_merges", family.ignore_merges}};
  model["vocab"] = std::move(vocab);
  model["merges"] = std::move(merges);
  return document;
}

}  // namespace qlora::data
