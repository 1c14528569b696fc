// A pattern as tokenizer.json writes it, {"String": "..."} or {"Regex": "..."}: what Split cuts at
// and Replace replaces.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "data/tokenizers/pieces.h"
#include "data/tokenizers/regex.h"
#include "io/json.h"

namespace qlora::data {

class TextPattern {
 public:
  explicit TextPattern(const io::JsonNode& node);
  explicit TextPattern(Regex regex) : regex_(std::move(regex)) {}

  // Appends the matches (is_delimiter) and what lies between them, in order.
  void find_parts(std::string_view text, std::vector<Part>& parts) const;

  std::string replace_all(std::string_view text, std::string_view replacement) const;

 private:
  std::string literal_;  // used where there is no regex
  std::optional<Regex> regex_;
};

}  // namespace qlora::data
