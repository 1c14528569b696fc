// Splits a template into text and tokens, with jinja2's settings of chat templates: trim_blocks and
// lstrip_blocks.
#pragma once

#include <string>
#include <vector>

#include "data/jinja/source.h"

namespace qlora::data::jinja {

enum class TokenKind {
  kText,  // outside of tags, white space already removed
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kString,  // without quotes, escapes resolved
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  std::string text;
  size_t offset;  // into the source
};

// The last token is kEnd. FormatError at the place that is no token.
std::vector<Token> tokenize(const Source& source);

}  // namespace qlora::data::jinja
