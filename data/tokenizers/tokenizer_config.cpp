#include "data/tokenizers/tokenizer_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/utf8.h"
#include "base/warn_once.h"
#include "data/tokenizers/config_keys.h"
#include "data/tokenizers/generation_config.h"
#include "io/file_kind.h"
#include "io/json_text.h"

namespace qlora::data {
namespace {

constexpr const char* kRoles[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                  "sep_token", "cls_token", "mask_token"};

// Parses one of the files and hands its root on; does nothing if it is not there.
template <typename Use>
void with_json(const TokenizerFiles& files, const std::string& name, const std::string& place,
               Use use) {
  const auto file = files.find(name);
  if (file == files.end()) return;
  const std::string full = place + "/" + name;
  const nlohmann::json document = io::json_from_text(file->second, full);
  use(io::JsonNode(document, full));
}

// A token is written as its text, or as an object with the text and flags.
std::string token_text(const io::JsonNode& node) {
  return node.value().is_object() ? node.at("content").as_string() : node.as_string();
}

// A list of tokens, or (newer) an object name -> token.
std::vector<std::string> token_texts(const io::JsonNode& node) {
  std::vector<std::string> texts;
  if (node.value().is_object()) {
    for (const auto& [name, value] : node.value().items()) {
      texts.push_back(token_text(io::JsonNode(value, node.place() + "." + name)));
    }
  } else {
    for (const io::JsonNode& element : node.elements()) texts.push_back(token_text(element));
  }
  return texts;
}

void read_roles(const io::JsonNode& root, TokenizerConfig& config) {
  for (const char* role : kRoles)
    if (const auto token = root.find(role)) config.roles[role] = token_text(*token);
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto list = root.find(key);
    if (!list) continue;
    for (std::string& text : token_texts(*list)) {
      config.additional_special_tokens.push_back(std::move(text));
    }
  }
}

// As transformers does: special_tokens_map.json overrules tokenizer_config.json where that has no
// added_tokens_decoder. Roles that only one of the two names are as it says.
void read_special_tokens_map(const io::JsonNode& root, const std::string& place, bool overrules,
                             TokenizerConfig& config) {
  const std::map<std::string, std::string> before = config.roles;
  read_roles(root, config);
  for (const auto& [role, text] : before) {
    std::string& of_map = config.roles[role];
    if (of_map == text) continue;
    log::warning_once(
        "{}: {} is '{}' in tokenizer_config.json and '{}' in special_tokens_map.json; that of {} "
        "is used, as in transformers",
        place, role, text, of_map, overrules ? "special_tokens_map.json" : "tokenizer_config.json");
    if (!overrules) of_map = text;
  }
}

void read_added_tokens_decoder(const io::JsonNode& root, TokenizerConfig& config) {
  const auto decoder = root.find("added_tokens_decoder");
  if (!decoder) return;
  if (!decoder->value().is_object()) decoder->reject("an object of id: token");
  for (const auto& [key, value] : decoder->value().items()) {
    const io::JsonNode node(value, decoder->place() + "." + key);
    AddedToken token = parse_added_token(node);
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
    if (error != std::errc() || end != key.data() + key.size() || token.id < 0) {
      fail<FormatError>("{}: the key must be a token id, found '{}'", decoder->place(), key);
    }
    config.added_tokens.push_back(std::move(token));
  }
  std::sort(config.added_tokens.begin(), config.added_tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
}

// {text: id}: older files know only that.
void read_added_tokens_json(const io::JsonNode& root, TokenizerConfig& config) {
  if (!root.value().is_object()) root.reject("an object of token: id");
  for (const auto& [text, value] : root.value().items()) {
    const bool listed =
        std::any_of(config.added_tokens.begin(), config.added_tokens.end(),
                    [&text = text](const AddedToken& token) { return token.content == text; });
    if (listed) continue;
    AddedToken token;
    token.content = text;
    token.id = static_cast<TokenId>(
        io::JsonNode(value, root.place() + "." + text).as_integer(0, kMaxVocabularySize - 1));
    config.added_tokens.push_back(std::move(token));
  }
}

// As transformers does, the last one of a name is taken.
ModelTemplates named_templates(const io::JsonNode& node) {
  std::map<std::string, std::string> templates;
  for (const io::JsonNode& named : node.elements())
    templates[named.at("name").as_string()] = named.at("template").as_string();
  if (templates.contains("default")) return {templates["default"], templates["tool_use"]};
  std::vector<std::string> names;
  for (const auto& [name, text] : templates) names.push_back(name);
  if (!names.empty())
    log::warning_once(
        "{}: none of its chat templates ({}) is named 'default', so that none is taken; "
        "data.chat_template takes the text of one or a file",
        node.place(), fmt::join(names, ", "));
  return {};
}

ModelTemplates parse_chat_template(const io::JsonNode& node) {
  if (node.value().is_string()) return {node.as_string(), ""};
  if (!node.value().is_array()) node.reject("a string, or an array of named templates");
  return named_templates(node);
}

// Whether a chat_template, a text or a list of named ones, has this one for its default.
bool has_template(const nlohmann::json& source, const std::string& text) {
  if (!source.is_array()) return source == text;
  return std::ranges::any_of(source, [&](const nlohmann::json& named) {
    return named.is_object() && named.value("name", nlohmann::json()) == "default" &&
           named.value("template", nlohmann::json()) == text;
  });
}

// What the files behind `from` hold besides; of several places transformers takes the first of
// chat_template.jinja, tokenizer_config.json and chat_template.json.
void name_other_templates(const TokenizerFiles& files, const std::string& place,
                          const std::string& from, const std::string& taken) {
  for (const char* name : {"tokenizer_config.json", "chat_template.json"}) {
    if (name == from) continue;
    with_json(files, name, place, [&](const io::JsonNode& root) {
      const auto other = root.find("chat_template");
      if (other && !has_template(other->value(), taken))
        log::warning_once(
            "{}: {} and the chat_template of {} are two templates; the first is used, as in "
            "transformers",
            place, from == kTemplateFile ? from : "the chat_template of " + from, name);
    });
  }
}

std::string template_file(const TokenizerFiles& files, const std::string& name,
                          const std::string& place) {
  const auto file = files.find(name);
  if (file == files.end()) return "";
  if (const std::string kind = io::text_file_kind(file->second); !kind.empty())
    fail<FormatError>("{}/{} is {}", place, name, kind);
  check_utf8(file->second, place + "/" + name);
  return file->second;
}

// What stands in files of its own goes before what other files hold.
ModelTemplates read_chat_templates(const TokenizerFiles& files, const std::string& place) {
  ModelTemplates templates{template_file(files, kTemplateFile, place), ""};
  if (files.contains(kTemplateFile)) {
    name_other_templates(files, place, kTemplateFile, templates.chat);
  } else {
    for (const char* name : {"tokenizer_config.json", "chat_template.json"}) {
      with_json(files, name, place, [&](const io::JsonNode& root) {
        const auto source = root.find("chat_template");
        if (!source || !templates.chat.empty()) return;
        templates = parse_chat_template(*source);
        if (!templates.chat.empty() && name == std::string_view("tokenizer_config.json"))
          name_other_templates(files, place, name, templates.chat);
      });
    }
  }
  if (!files.contains(kToolUseFile)) return templates;
  if (!templates.chat.empty())
    templates.tool_use = template_file(files, kToolUseFile, place);
  else
    log::warning_once(
        "{}: beside {} there is no chat template, so that none is taken; data.chat_template takes "
        "the text of one or a file",
        place, kToolUseFile);
  return templates;
}

std::optional<bool> optional_bool(const io::JsonNode& root, const char* key) {
  const auto node = root.find(key);
  if (!node) return std::nullopt;
  return node->as_bool();
}

}  // namespace

TokenizerConfig parse_tokenizer_config(const TokenizerFiles& files, const std::string& place) {
  TokenizerConfig config;
  bool has_decoder = false;
  with_json(files, "tokenizer_config.json", place, [&](const io::JsonNode& root) {
    has_decoder = root.find("added_tokens_decoder").has_value();
    check_tokenizer_config_keys(root);
    config.tokenizer_class = root.string_or("tokenizer_class", "");
    config.add_bos_token = optional_bool(root, "add_bos_token");
    config.add_eos_token = optional_bool(root, "add_eos_token");
    config.add_prefix_space = optional_bool(root, "add_prefix_space");
    config.legacy = optional_bool(root, "legacy");
    read_roles(root, config);
    read_added_tokens_decoder(root, config);
  });
  with_json(files, "special_tokens_map.json", place, [&](const io::JsonNode& root) {
    read_special_tokens_map(root, place, !has_decoder, config);
  });
  with_json(files, "added_tokens.json", place,
            [&](const io::JsonNode& root) { read_added_tokens_json(root, config); });
  config.generation_eos_ids = generation_eos_ids(files, place);
  if (config.generation_eos_ids.empty()) config.model_eos_ids = config_eos_ids(files);
  config.templates = read_chat_templates(files, place);
  return config;
}

ModelTemplates chat_templates_in(const std::string& directory) {
  return read_chat_templates(read_tokenizer_files(directory), directory);
}

std::vector<AddedToken> merge_added_tokens(std::vector<AddedToken> of_file,
                                           const TokenizerConfig& config,
                                           const Vocabulary& vocabulary, const std::string& place) {
  std::vector<AddedToken> tokens = std::move(of_file);
  std::map<std::string, size_t> by_content;
  int64_t next_id = vocabulary.id_limit();
  for (size_t i = 0; i < tokens.size(); ++i) {
    by_content.emplace(tokens[i].content, i);
    next_id = std::max<int64_t>(next_id, int64_t{tokens[i].id} + 1);
  }
  const auto add = [&](AddedToken token) {
    if (token.id < 0) token.id = vocabulary.find(token.content).value_or(next_id);
    next_id = std::max<int64_t>(next_id, int64_t{token.id} + 1);
    by_content.emplace(token.content, tokens.size());
    tokens.push_back(std::move(token));
  };
  for (const AddedToken& token : config.added_tokens) {
    const auto known = by_content.find(token.content);
    if (known == by_content.end()) {
      add(token);
    } else if (tokens[known->second].id == token.id) {
      tokens[known->second] = token;
    } else {
      fail<FormatError>(
          "{}: the files must agree on the id of '{}', but tokenizer.json has {} and "
          "tokenizer_config.json {}",
          place, token.content, tokens[known->second].id, token.id);
    }
  }
  const auto add_special = [&](const std::string& content) {
    const auto known = by_content.find(content);
    if (known != by_content.end())
      tokens[known->second].special = true;
    else if (!content.empty())
      add({.content = content, .special = true});
  };
  for (const auto& [role, content] : config.roles) add_special(content);
  for (const std::string& content : config.additional_special_tokens) add_special(content);
  return tokens;
}

SpecialTokens resolve_special_tokens(const TokenizerConfig& config, const Vocabulary& vocabulary,
                                     const std::vector<AddedToken>& added) {
  const auto resolve = [&](const char* role) -> std::optional<SpecialToken> {
    const auto text = config.roles.find(role);
    if (text == config.roles.end()) return std::nullopt;
    for (const AddedToken& token : added) {
      if (token.content == text->second) return SpecialToken{token.id, token.content};
    }
    const auto id = vocabulary.find(text->second);
    if (!id) return std::nullopt;
    return SpecialToken{*id, text->second};
  };
  SpecialTokens tokens;
  tokens.bos = resolve("bos_token");
  tokens.eos = resolve("eos_token");
  tokens.unk = resolve("unk_token");
  tokens.pad = resolve("pad_token");
  std::set<TokenId> ends = config.generation_eos_ids;
  if (tokens.eos) ends.insert(tokens.eos->id);
  for (const TokenId id : config.model_eos_ids)
    if (vocabulary.token(id) || std::ranges::count(added, id, &AddedToken::id) > 0) ends.insert(id);
  tokens.end_of_generation.assign(ends.begin(), ends.end());
  return tokens;
}

}  // namespace qlora::data
