#include "data/marked_text.h"

#include <algorithm>
#include <optional>

#include "base/utf8.h"

namespace qlora::data {
namespace {

// Whether the text may be cut at `at`: not inside a character.
bool is_cut(std::string_view text, size_t at) {
  return at == text.size() || !is_utf8_continuation(text[at]);
}

// How many tokens end at or before byte `at`: the index of the token that holds this byte.
size_t tokens_before(const EncodedText& coded, size_t at) {
  for (size_t size = at; size > 0; --size) {
    if (!is_cut(coded.text(), size)) continue;
    if (const auto count = coded.num_ids_of_beginning(size)) return *count;
  }
  return coded.num_ids_of_beginning(0).value_or(0);
}

// How many tokens it takes to write the first `at` bytes: those that begin before byte `at`.
size_t tokens_through(const EncodedText& coded, size_t at) {
  for (size_t size = at; size < coded.text().size(); ++size) {
    if (!is_cut(coded.text(), size)) continue;
    if (const auto count = coded.num_ids_of_beginning(size)) return *count;
  }
  return coded.ids().size();
}

}  // namespace

Example tokenize_marked(std::string_view text, const std::vector<TextSpan>& spans,
                        const PromptEncoder& encoder) {
  const EncodedText coded(text, encoder);
  Example example;
  example.tokens = coded.ids();
  example.supervised.assign(example.tokens.size(), 0);
  for (const TextSpan& span : spans) {
    const size_t begin = tokens_before(coded, span.begin);
    const size_t end = std::max(begin, tokens_through(coded, span.end));
    std::fill(example.supervised.begin() + static_cast<ptrdiff_t>(begin),
              example.supervised.begin() + static_cast<ptrdiff_t>(end), uint8_t{1});
  }
  if (!example.supervised.empty()) example.supervised[0] = 0;
  return example;
}

}  // namespace qlora::data
