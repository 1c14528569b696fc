// JSON files, and a value inside one together with the place it came from, so that every complaint
// names the key that is wrong: "tokenizer.json.model.merges[3] must be ...".
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qlora::io {

class JsonNode {
 public:
  // Borrows `value`. `place` is the file's name; keys are appended to it.
  JsonNode(const nlohmann::json& value, std::string place);

  const nlohmann::json& value() const { return *value_; }
  const std::string& place() const { return place_; }
  bool is_null() const { return value_->is_null(); }

  // A member that must be there; FormatError if it is not, or if this is no object.
  JsonNode at(const std::string& key) const;
  // A member that may be absent or null.
  std::optional<JsonNode> find(const std::string& key) const;
  // The elements of an array.
  std::vector<JsonNode> elements() const;

  std::string as_string() const;  // the string, FormatError if it is none; and so on
  bool as_bool() const;
  int64_t as_integer(int64_t low, int64_t high) const;
  double as_number() const;

  // Members with a default for absent or null.
  std::string string_or(const std::string& key, const std::string& otherwise) const;
  bool bool_or(const std::string& key, bool otherwise) const;

  // FormatError "PLACE must be REQUIREMENT, found VALUE".
  [[noreturn]] void reject(const std::string& requirement) const;

 private:
  const nlohmann::json* value_;
  std::string place_;
};

// Parses `text`; `source` names it in messages. FormatError with line and column if it is not JSON,
// nests deeper than 200 or repeats a key in an object. Objects are sorted maps (the ordered ones of
// nlohmann insert in linear time: vocabularies have 150,000 keys).
nlohmann::json parse_json(std::string_view text, const std::string& source);
// A whole JSON file. IoError if it cannot be read.
nlohmann::json read_json_file(const std::string& path);

}  // namespace qlora::io
