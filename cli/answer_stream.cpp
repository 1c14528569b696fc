#include "cli/answer_stream.h"

#include <algorithm>
#include <string_view>

#include "cli/standard_streams.h"

namespace qlora::cli {
namespace {

// Length without a character at the end that is not whole yet: the decoder writes U+FFFD for it.
size_t whole_length(const std::string& text) {
  constexpr std::string_view kReplacement = "\xef\xbf\xbd";
  size_t length = text.size();
  while (text.substr(0, length).ends_with(kReplacement)) length -= kReplacement.size();
  return length;
}

void print(std::string_view text, size_t begin, size_t end) {
  print_now(text.substr(begin, end - begin));
}

}  // namespace

void AnswerStream::add(int32_t id) {
  const auto& ends = tokenizer_.special_tokens().end_of_generation;
  if (std::ranges::count(ends, id)) return;
  ids_.push_back(id);
  text_ = tokenizer_.decode(ids_, true);
  const size_t length = whole_length(text_);
  if (length <= printed_) return;
  print(text_, printed_, length);
  printed_ = length;
}

void AnswerStream::finish() {
  if (text_.size() > printed_) print(text_, printed_, text_.size());
  print_now("\n");
}

}  // namespace qlora::cli
