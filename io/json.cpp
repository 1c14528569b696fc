#include "io/json.h"

#include <unordered_set>

#include "base/error.h"
#include "base/utf8.h"
#include "io/file_kind.h"
#include "io/json_fault.h"
#include "io/read_file.h"

namespace qlora::io {
namespace {

constexpr size_t kShownBytes = 60;

std::string shown(const nlohmann::json& value) {
  if (value.is_structured()) return fmt::format("an {} of {}", value.type_name(), value.size());
  return shortened_utf8(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
                        kShownBytes);
}

}  // namespace

JsonNode::JsonNode(const nlohmann::json& value, std::string place)
    : value_(&value), place_(std::move(place)) {}

JsonNode JsonNode::at(const std::string& key) const {
  if (!value_->is_object()) reject("an object");
  const auto member = value_->find(key);
  if (member == value_->end()) fail<FormatError>("{} must have a member '{}'", place_, key);
  return {*member, place_ + "." + key};
}

std::optional<JsonNode> JsonNode::find(const std::string& key) const {
  if (!value_->is_object()) reject("an object");
  const auto member = value_->find(key);
  if (member == value_->end() || member->is_null()) return std::nullopt;
  return JsonNode(*member, place_ + "." + key);
}

std::vector<JsonNode> JsonNode::elements() const {
  if (!value_->is_array()) reject("an array");
  std::vector<JsonNode> nodes;
  nodes.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i) {
    nodes.emplace_back((*value_)[i], fmt::format("{}[{}]", place_, i));
  }
  return nodes;
}

std::string JsonNode::as_string() const {
  if (!value_->is_string()) reject("a string");
  return value_->get<std::string>();
}

bool JsonNode::as_bool() const {
  if (!value_->is_boolean()) reject("true or false");
  return value_->get<bool>();
}

int64_t JsonNode::as_integer(int64_t low, int64_t high) const {
  const bool fits = value_->is_number_unsigned()
                        ? value_->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX)
                        : value_->is_number_integer();
  const int64_t number = fits ? value_->get<int64_t>() : 0;
  if (!fits || number < low || number > high) {
    reject(fmt::format("an integer from {} to {}", low, high));
  }
  return number;
}

double JsonNode::as_number() const {
  if (!value_->is_number()) reject("a number");
  return value_->get<double>();
}

std::string JsonNode::string_or(const std::string& key, const std::string& otherwise) const {
  const auto member = find(key);
  return member ? member->as_string() : otherwise;
}

bool JsonNode::bool_or(const std::string& key, bool otherwise) const {
  const auto member = find(key);
  return member ? member->as_bool() : otherwise;
}

void JsonNode::reject(const std::string& requirement) const {
  fail<FormatError>("{} must be {}, found {}", place_, requirement, shown(*value_));
}

namespace {

constexpr int kDeepest = 200;

// Builds the document as nlohmann's own handler does, and watches depth and keys on the way.
class StrictHandler : public nlohmann::detail::json_sax_dom_parser<nlohmann::json> {
 public:
  StrictHandler(nlohmann::json& root, const std::string& source)
      : json_sax_dom_parser(root, true), source_(source) {}

  bool start_object(std::size_t length) {
    enter();
    keys_.emplace_back();
    return json_sax_dom_parser::start_object(length);
  }
  bool end_object() {
    --depth_;
    keys_.pop_back();
    return json_sax_dom_parser::end_object();
  }
  bool start_array(std::size_t length) {
    enter();
    return json_sax_dom_parser::start_array(length);
  }
  bool end_array() {
    --depth_;
    return json_sax_dom_parser::end_array();
  }
  bool key(std::string& name) {
    if (!keys_.back().insert(name).second) {
      fail<FormatError>("{}: an object must hold each key once, '{}' stands there twice", source_,
                        shortened_utf8(name, kShownBytes));
    }
    return json_sax_dom_parser::key(name);
  }

 private:
  void enter() {
    if (++depth_ > kDeepest) {
      fail<FormatError>("{}: JSON may nest {} deep, this nests deeper", source_, kDeepest);
    }
  }
  const std::string& source_;
  std::vector<std::unordered_set<std::string>> keys_;
  int depth_ = 0;
};

}  // namespace

nlohmann::json parse_json(std::string_view text, const std::string& source) {
  if (const std::string kind = text_file_kind(text); !kind.empty())
    fail<FormatError>("{} must be JSON, but is {}", source, kind);
  // nlohmann takes one for the end of the text, whatever comes after it.
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos)
    fail<FormatError>("{} must be JSON: there is a NUL at byte {}", source, zero);
  nlohmann::json document;
  StrictHandler handler(document, source);
  try {
    nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
  } catch (const nlohmann::json::exception& error) {
    fail<FormatError>("{} is not valid JSON{}", source, json_fault(text, error));
  }
  return document;
}

nlohmann::json read_json_file(const std::string& path) {
  return parse_json(read_bytes(path), path);
}

}  // namespace qlora::io
