#include "data/tokenizers/text_pattern.h"

#include "base/utf8.h"

namespace qlora::data {

TextPattern::TextPattern(const io::JsonNode& node) {
  if (const auto literal = node.find("String")) {
    literal_ = literal->as_string();
    if (literal_.empty()) literal->reject("a string that is not empty");
  } else if (const auto pattern = node.find("Regex")) {
    regex_.emplace(pattern->as_string(), pattern->place());
  } else {
    node.reject("an object with 'String' or 'Regex'");
  }
}

void TextPattern::find_parts(std::string_view text, std::vector<Part>& parts) const {
  std::optional<Regex::Search> search;
  if (regex_) search.emplace(*regex_, text);
  const auto find = [&](size_t from, Regex::Match& match) {
    if (search) return search->find(from, match);
    match.begin = text.find(literal_, from);
    match.end = match.begin + literal_.size();
    return match.begin != std::string_view::npos;
  };
  size_t between = 0;  // end of the last match
  size_t from = 0;
  Regex::Match match;
  while (from <= text.size() && find(from, match)) {
    const bool empty = match.begin == match.end;
    from = match.end;
    if (empty) from += match.end < text.size() ? utf8_length(text[match.end]) : 1;
    if (empty && match.begin == between && between > 0) continue;  // right behind the last match
    if (between < match.begin) parts.push_back({{between, match.begin}, false});
    parts.push_back({{match.begin, match.end}, true});
    between = match.end;
  }
  if (between < text.size()) parts.push_back({{between, text.size()}, false});
}

std::string TextPattern::replace_all(std::string_view text, std::string_view replacement) const {
  std::vector<Part> parts;
  find_parts(text, parts);
  std::string out;
  out.reserve(text.size());
  for (const Part& part : parts) {
    out += part.is_delimiter ? replacement
                             : text.substr(part.span.begin, part.span.end - part.span.begin);
  }
  return out;
}

}  // namespace qlora::data
