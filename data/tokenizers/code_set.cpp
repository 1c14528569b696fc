#include "data/tokenizers/code_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace qlora::data {

CodeSet::CodeSet(std::vector<Range> ranges) : ranges_(std::move(ranges)) {
  std::ranges::sort(ranges_);
  size_t kept = 0;
  for (size_t next = 1; next < ranges_.size(); ++next) {
    if (ranges_[next].first <= ranges_[kept].last + 1) {
      ranges_[kept].last = std::max(ranges_[kept].last, ranges_[next].last);
    } else {
      ranges_[++kept] = ranges_[next];
    }
  }
  if (!ranges_.empty()) ranges_.resize(kept + 1);
}

CodeSet CodeSet::complement() const {
  CodeSet others;
  char32_t begin = 0;
  for (const Range& range : ranges_) {
    if (begin < range.first) others.ranges_.push_back({begin, range.first - 1});
    begin = range.last + 1;
  }
  if (begin <= kLast) others.ranges_.push_back({begin, kLast});
  return others;
}

bool CodeSet::contains(char32_t code) const {
  const auto behind = std::ranges::upper_bound(ranges_, code, {}, &Range::first);
  return behind != ranges_.begin() && code <= std::prev(behind)->last;
}

std::string class_text(const CodeSet& set, char32_t last) {
  constexpr char32_t kBeforeSurrogates = 0xD7FF, kBehindSurrogates = 0xE000;
  std::string text = "[";
  const auto add = [&](char32_t from, char32_t to) {
    to = std::min(to, last);
    if (from <= to)
      text += fmt::format("\\x{{{:X}}}-\\x{{{:X}}}", static_cast<uint32_t>(from),
                          static_cast<uint32_t>(to));
  };
  for (const auto& [from, to] : set.ranges()) {
    add(from, std::min(to, kBeforeSurrogates));
    add(std::max(from, kBehindSurrogates), to);
  }
  if (text == "[") return fmt::format("[^\\x{{0}}-\\x{{{:X}}}]", static_cast<uint32_t>(last));
  return text + ']';
}

}  // namespace qlora::data
