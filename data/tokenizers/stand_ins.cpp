#include "data/tokenizers/stand_ins.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <set>
#include <span>

#include "base/utf8.h"
#include "data/tokenizers/script_property.h"
#include "data/tokenizers/unicode_tables.h"

namespace qlora::data {
namespace {

using unicode_tables::kClasses;
using unicode_tables::kNew;
using unicode_tables::kScripts;

struct Interval {
  char32_t begin, end;
};

constexpr char32_t kLimit = 0x110000;

char32_t end_of_run(size_t run) {
  return run + 1 < kClasses.size() ? kClasses[run + 1].first : kLimit;
}

// The characters that a pattern names, and where its ranges end.
std::set<char32_t> edges_of(std::string_view pattern) {
  std::set<char32_t> edges = {0, 0x80, 0x800, 0x10000, kLimit};  // where UTF-8 takes a byte more
  const auto add = [&](char32_t code) {
    if (code < 0x80 || code >= kLimit) return;
    edges.insert(code);
    edges.insert(code + 1);
  };
  for (const char32_t code : {0xB2, 0xB3, 0xB9, 0xBC, 0xBE}) add(code);  // which \w means
  for (size_t index = 0; index < pattern.size();) {
    const std::string_view rest = pattern.substr(index);
    if (rest.starts_with("\\x{") || rest.starts_with("\\u")) {
      const std::string_view digits = rest[1] == 'x' ? rest.substr(3) : rest.substr(2, 4);
      uint32_t code = 0;
      std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
      add(code);
      index += rest[1] == 'x' ? 3 : 2;
    } else {
      add(next_code_point(pattern, index));
    }
  }
  return edges;
}

// Of the scripts that a pattern names; all others are alike.
class NamedScripts {
 public:
  explicit NamedScripts(std::string_view pattern) {
    for (size_t index = 0; index < pattern.size(); ++index)
      if (const auto escape = script_escape(pattern.substr(index))) named_.insert(escape->script);
  }

  // The end of the characters from `code` on that are alike.
  char32_t end_of_run(char32_t code) const {
    if (named_.empty()) return kLimit;
    const auto behind = run_behind(code);
    return behind == kScripts.end() ? kLimit : behind->first;
  }
  // The first character of the cell that is like `code`; 0: there is none.
  char32_t first_like(char32_t code, const Interval& cell) const {
    const int script = script_of(code);
    for (char32_t one = cell.begin; one < cell.end; one = end_of_run(one))
      if (script_of(one) == script) return one;
    return 0;
  }

 private:
  static constexpr int kOther = -1;

  static std::span<const unicode_tables::Run>::iterator run_behind(char32_t code) {
    return std::ranges::upper_bound(kScripts, code, {}, &unicode_tables::Run::first);
  }
  int script_of(char32_t code) const {
    if (named_.empty()) return kOther;
    const uint8_t script = std::prev(run_behind(code))->value;
    return named_.contains(script) ? script : kOther;
  }

  std::set<uint8_t> named_;
};

// By the value of a class: the intervals of characters that every PCRE2 knows.
const std::array<std::vector<Interval>, kNew>& known_characters() {
  static const auto known = [] {
    std::array<std::vector<Interval>, kNew> intervals;
    for (size_t run = 0; run < kClasses.size(); ++run) {
      const uint8_t value = kClasses[run].value;
      if (value < kNew) intervals[value].push_back({kClasses[run].first, end_of_run(run)});
    }
    return intervals;
  }();
  return known;
}

// A known character of the class within `cell`, of the script of `code`; 0: there is none.
char32_t known_in(uint8_t value, const Interval& cell, char32_t code, const NamedScripts& scripts) {
  for (const Interval& known : known_characters()[value]) {
    const Interval both = {std::max(known.begin, cell.begin), std::min(known.end, cell.end)};
    if (const char32_t found = scripts.first_like(code, both); found != 0) return found;
  }
  return 0;
}

}  // namespace

StandIns::StandIns(std::string_view pattern) {
  const std::set<char32_t> edges = edges_of(pattern);
  const NamedScripts scripts(pattern);
  for (size_t run = 0; run < kClasses.size(); ++run) {
    const auto& [first, value] = kClasses[run];
    if (!(value & kNew) || first < 0x80) continue;
    const char32_t end = end_of_run(run);
    for (char32_t begin = first; begin < end;) {
      const auto edge = edges.upper_bound(begin);
      const Interval cell = {*std::prev(edge), *edge};
      const char32_t cut = std::min({end, cell.end, scripts.end_of_run(begin)});
      const char32_t stand_in = known_in(value & ~kNew, cell, begin, scripts);
      if (stand_in != 0) ranges_.push_back({begin, cut - 1, stand_in});
      begin = cut;
    }
  }
}

const StandIns::Range* StandIns::find(char32_t code) const {
  const auto range = std::lower_bound(ranges_.begin(), ranges_.end(), code,
                                      [](const Range& one, char32_t c) { return one.last < c; });
  return range != ranges_.end() && range->first <= code ? &*range : nullptr;
}

std::optional<std::string> StandIns::replace(std::string_view text) const {
  std::optional<std::string> replaced;
  size_t copied = 0;  // bytes of text that stand in `replaced`
  for (size_t index = 0; index < text.size();) {
    if (static_cast<unsigned char>(text[index]) < 0x80) {
      ++index;
      continue;
    }
    const size_t begin = index;
    const Range* range = find(next_code_point(text, index));
    if (!range) continue;
    if (!replaced) replaced.emplace();
    replaced->append(text.substr(copied, begin - copied));
    append_utf8(range->stand_in, *replaced);
    copied = index;
  }
  if (replaced) replaced->append(text.substr(copied));
  return replaced;
}

}  // namespace qlora::data
