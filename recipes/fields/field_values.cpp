#include "recipes/fields/field_values.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <optional>
#include <utility>

#include "base/ascii_case.h"
#include "recipes/fields/later_keys.h"

namespace qlora::recipes {
namespace {

void refuse(const Node& node, const std::string& key, ProblemList& problems,
            const std::string& what, const std::string& hint = "") {
  problems.covered(key);
  problems.add(node.place,
               fmt::format("{} must be {}, got {}{}", key, what, node.describe(), hint));
}

bool is_plain(const Node& node) { return node.is_scalar() && !node.quoted; }

// Other spellings of true and false, which YAML 1.1 reads as booleans and YAML 1.2 as text.
std::optional<bool> meant_as_boolean(const Node& node) {
  if (!node.is_scalar()) return {};
  const std::string lower = ascii_lower_case(node.text);
  for (const char* word : {"true", "yes", "on", "y", "1"})
    if (lower == word) return true;
  for (const char* word : {"false", "no", "off", "n", "0"})
    if (lower == word) return false;
  return {};
}

template <typename Number>
void decode_number(const Node& node, const std::string& key, ProblemList& problems,
                   const char* what, Number& value) {
  if (!is_plain(node)) {
    const bool is_number_in_quotes =
        node.is_scalar() && !node.text.empty() &&
        node.text.find_first_not_of("+-.0123456789eE") == std::string::npos;
    return refuse(node, key, problems, what, is_number_in_quotes ? "; leave out the quotes" : "");
  }
  const char* begin = node.text.data();
  const char* end = begin + node.text.size();
  if (end - begin > 1 && begin[0] == '+' && begin[1] != '-') ++begin;
  Number number{};
  const auto [stop, error] = std::from_chars(begin, end, number);
  if (error == std::errc::result_out_of_range && stop == end)
    return refuse(node, key, problems, what, ", which is out of range");
  if (error != std::errc() || stop != end) return refuse(node, key, problems, what);
  value = number;
}

template <typename Enum>
using Names = std::vector<std::pair<const char*, Enum>>;

const Names<data::TrainOn> kTrainOn = {{"assistant", data::TrainOn::kAssistant},
                                       {"all", data::TrainOn::kAll},
                                       {"last", data::TrainOn::kLast}};
const Names<data::OnOverlength> kOnOverlength = {
    {"error", data::OnOverlength::kError},
    {"drop", data::OnOverlength::kDrop},
    {"truncate_left", data::OnOverlength::kTruncateLeft},
    {"truncate_right", data::OnOverlength::kTruncateRight},
    {"split", data::OnOverlength::kSplit}};

template <typename Enum>
void decode_enum(const Node& node, const std::string& key, ProblemList& problems,
                 const Names<Enum>& names, Enum& value) {
  std::vector<std::string> known;
  for (const auto& [name, meaning] : names) {
    if (node.is_scalar() && node.text == name) {
      value = meaning;
      return;
    }
    known.push_back(name);
  }
  refuse(node, key, problems, fmt::format("one of {}", fmt::join(known, ", ")));
}

template <typename Enum>
Node encode_enum(const Names<Enum>& names, Enum value) {
  for (const auto& [name, meaning] : names)
    if (meaning == value) return Node::scalar(name);
  return {};
}

}  // namespace

void decode(const Node& node, const std::string& key, ProblemList& problems, int& value) {
  decode_number(node, key, problems, "an integer", value);
}
void decode(const Node& node, const std::string& key, ProblemList& problems, int64_t& value) {
  decode_number(node, key, problems, "an integer", value);
}
void decode(const Node& node, const std::string& key, ProblemList& problems, uint64_t& value) {
  decode_number(node, key, problems, "an integer >= 0", value);
}
void decode(const Node& node, const std::string& key, ProblemList& problems, double& value) {
  decode_number(node, key, problems, "a number", value);
}

void decode(const Node& node, const std::string& key, ProblemList& problems, bool& value) {
  if (is_plain(node) && (node.text == "true" || node.text == "false")) {
    value = node.text == "true";
    return;
  }
  const std::optional<bool> meant = meant_as_boolean(node);
  refuse(node, key, problems, "true or false",
         meant ? fmt::format("; write {}", *meant ? "true" : "false") : "");
}

void decode(const Node& node, const std::string& key, ProblemList& problems, std::string& value) {
  if (!node.is_scalar()) return refuse(node, key, problems, "a text");
  if (is_plain(node) && (node.text == "true" || node.text == "false"))
    return refuse(node, key, problems, "a text", "; put it in quotes if it is meant as text");
  if (const std::string later = later_value(key, node.text); !later.empty()) {
    problems.covered(key);
    problems.add(node.place, later);
    return;
  }
  value = node.text;
}

namespace {

// What a list or map of this key looks like, if not as most of its type do.
const char* expected_of(const std::string& key, const char* usual) {
  constexpr std::pair<const char*, const char*> kOwn[] = {
      {"model.max_memory", "a map from devices to sizes, such as {cpu: 30GiB}"},
      {"optim.weight_decay_pattern",
       "a map from names of trained tensors to numbers, such as {lora_B: 0.1}"},
      {"lora.trainable_tokens", "a list of texts, such as [<tool>, </tool>]"},
      {"lora.trainable_token_indices",
       "a list of whole numbers, such as [5, 6], or a map such as {embed_tokens: [5, 6]}"},
      {"train.sample_prompts", "a list of texts, such as [\"What is 7 times 8?\"]"}};
  for (const auto& [own, expected] : kOwn)
    if (key == own) return expected;
  return usual;
}

}  // namespace

void decode(const Node& node, const std::string& key, ProblemList& problems,
            std::vector<std::string>& value) {
  std::vector<std::string> texts;
  const std::vector<Node> items = node.is_scalar() ? std::vector<Node>{node} : node.items;
  if (!node.is_scalar() && !node.is_list())
    return refuse(node, key, problems,
                  expected_of(key, "a list of texts, such as [q_proj, v_proj]"));
  for (const Node& item : items) {
    texts.emplace_back();
    decode(item, key, problems, texts.back());
  }
  if (!problems.is_covered(key)) value = std::move(texts);
}

namespace {

template <typename Map>
void decode_map(const Node& node, const std::string& key, ProblemList& problems,
                const char* expected, Map& value) {
  if (!node.is_map()) return refuse(node, key, problems, expected_of(key, expected));
  for (const Node::Entry& entry : node.entries) {
    problems.found(key + "." + entry.key, entry.place);
    decode(entry.value, key + "." + entry.key, problems, value[entry.key]);
  }
}

template <typename Number>
void decode_number_list(const Node& node, const std::string& key, ProblemList& problems,
                        const char* expected, std::vector<Number>& value) {
  if (!node.is_list()) return refuse(node, key, problems, expected_of(key, expected));
  value.clear();
  for (size_t i = 0; i < node.items.size(); ++i)
    decode(node.items[i], fmt::format("{}[{}]", key, i), problems, value.emplace_back());
}

template <typename Map>
Node encode_map(const Map& value) {
  std::vector<Node::Entry> entries;
  for (const auto& [key, one] : value) entries.push_back(Node::entry(key, encode(one)));
  return Node::map(std::move(entries));
}

template <typename Value>
Node encode_list(const std::vector<Value>& value) {
  std::vector<Node> items;
  for (const Value& one : value) items.push_back(encode(one));
  return Node::list(std::move(items));
}

constexpr const char* kPatternMap =
    "a map from module patterns to numbers, such as {down_proj: 32}";

}  // namespace

void decode(const Node& node, const std::string& key, ProblemList& problems,
            std::map<std::string, std::string>& value) {
  decode_map(node, key, problems, "a map from our names to the file's, such as {output: answer}",
             value);
}
void decode(const Node& node, const std::string& key, ProblemList& problems,
            OrderedMap<int64_t>& value) {
  decode_map(node, key, problems, kPatternMap, value);
}
void decode(const Node& node, const std::string& key, ProblemList& problems,
            OrderedMap<double>& value) {
  decode_map(node, key, problems, kPatternMap, value);
}

void decode(const Node& node, const std::string& key, ProblemList& problems,
            std::vector<int64_t>& value) {
  decode_number_list(node, key, problems, "a list of whole numbers, such as [0, 1, 2]", value);
}
void decode(const Node& node, const std::string& key, ProblemList& problems,
            std::vector<double>& value) {
  decode_number_list(node, key, problems, "a list of numbers, such as [0.9, 0.999]", value);
}

void decode(const Node& node, const std::string& key, ProblemList& problems, data::TrainOn& value) {
  decode_enum(node, key, problems, kTrainOn, value);
}
void decode(const Node& node, const std::string& key, ProblemList& problems,
            data::OnOverlength& value) {
  decode_enum(node, key, problems, kOnOverlength, value);
}

void decode_word_or_boolean(const Node& node, const std::string& key, ProblemList& problems,
                            std::string& value) {
  if (is_plain(node) && (node.text == "true" || node.text == "false"))
    value = node.text;
  else
    decode(node, key, problems, value);
}

void decode_word_or_map(const Node& node, const std::string& key, ProblemList& problems,
                        std::map<std::string, std::string>& value) {
  value.clear();
  if (!node.is_scalar())
    return decode_map(node, key, problems,
                      "a word such as auto, or a map such as {model.layers: disk}", value);
  std::string word;
  decode(node, key, problems, word);
  if (!problems.is_covered(key)) value[""] = word;
}

Node encode_word_or_map(const std::map<std::string, std::string>& value) {
  const bool is_word = value.size() == 1 && value.begin()->first.empty();
  return is_word ? encode(value.begin()->second) : encode_map(value);
}

Node encode(int value) { return Node::scalar(fmt::format("{}", value)); }
Node encode(int64_t value) { return Node::scalar(fmt::format("{}", value)); }
Node encode(uint64_t value) { return Node::scalar(fmt::format("{}", value)); }
Node encode(double value) { return Node::scalar(fmt::format("{}", value)); }
Node encode(bool value) { return Node::scalar(value ? "true" : "false"); }
Node encode(const std::string& value) { return Node::string(value); }
Node encode(data::TrainOn value) { return encode_enum(kTrainOn, value); }
Node encode(data::OnOverlength value) { return encode_enum(kOnOverlength, value); }

Node encode(const std::vector<std::string>& value) { return encode_list(value); }
Node encode(const std::vector<int64_t>& value) { return encode_list(value); }
Node encode(const std::vector<double>& value) { return encode_list(value); }
Node encode(const std::map<std::string, std::string>& value) { return encode_map(value); }
Node encode(const OrderedMap<int64_t>& value) { return encode_map(value); }
Node encode(const OrderedMap<double>& value) { return encode_map(value); }

}  // namespace qlora::recipes
