#include "data/tokenizers/vocabulary_kind.h"

#include <algorithm>

#include "base/error.h"
#include "io/file_kind.h"

namespace qlora::data {
namespace {

bool is_base64(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
         c == '/' || c == '=';
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// "IQ== 0": a token's bytes in base64 and its rank.
bool is_tiktoken(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, bytes.find_first_of("\r\n"));
  const size_t blank = line.find(' ');
  if (blank == std::string_view::npos || blank == 0 || blank + 1 == line.size()) return false;
  const std::string_view token = line.substr(0, blank), rank = line.substr(blank + 1);
  return token.size() % 4 == 0 && std::ranges::all_of(token, is_base64) &&
         std::ranges::all_of(rank, is_digit);
}

bool is_tekken(std::string_view bytes) {
  return bytes.starts_with('{') && bytes.find("\"token_bytes\"") != std::string_view::npos &&
         bytes.find("\"pattern\"") != std::string_view::npos;
}

}  // namespace

void require_known_vocabulary(std::string_view bytes, const std::string& path) {
  if (const std::string kind = io::kind_by_first_bytes(bytes); !kind.empty()) {
    fail<FormatError>("{} is {}", path, kind);
  }
  const char* name = is_tiktoken(bytes) ? "tiktoken" : is_tekken(bytes) ? "tekken" : nullptr;
  if (!name) return;
  fail<FormatError>(
      "{} is a {} vocabulary, which is not read; take the tokenizer.json of the model's directory "
      "for transformers, or let transformers make one of it (AutoTokenizer.from_pretrained, then "
      "save_pretrained)",
      path, name);
}

}  // namespace qlora::data
