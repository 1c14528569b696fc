#include "data/tokenizers/json_node.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace qlora::data {
namespace {

constexpr size_t kShownCharacters = 60;

std::string shown(const nlohmann::json& value) {
  if (value.is_structured()) return fmt::format("an {} of {}", value.type_name(), value.size());
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > kShownCharacters) text = text.substr(0, kShownCharacters) + "...";
  return text;
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

nlohmann::json read_json_document(const std::string& path) {
  const std::string text = read_bytes(path);
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    fail<FormatError>("{} must be a JSON file: {}", path, error.what());
  }
}

std::string read_bytes(const std::string& path) {
  std::error_code status;
  if (std::filesystem::is_directory(path, status)) {
    fail<IoError>("{} must be a file, but it is a directory", path);
  }
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) fail<IoError>("{} cannot be opened: {}", path, std::strerror(errno));
  std::string bytes(static_cast<size_t>(file.tellg()), '\0');
  file.seekg(0).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file) fail<IoError>("{} cannot be read: {}", path, std::strerror(errno));
  return bytes;
}

}  // namespace qlora::data
