// Prints an answer while it is generated: text as soon as its characters are whole.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace qlora::cli {

class AnswerStream {
 public:
  explicit AnswerStream(const data::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  // Writes to stdout what the token adds; IoError if it does not take it. Tokens that end a
  // generation are not shown.
  void add(int32_t id);
  // The rest, and a newline.
  void finish();
  const std::string& text() const { return text_; }

 private:
  const data::Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;
  std::string text_;
  size_t printed_ = 0;
};

}  // namespace qlora::cli
