// Classes in brackets, with other classes inside of them.
#include <fmt/format.h>

#include <optional>
#include <vector>

#include "data/tokenizers/named_sets.h"
#include "data/tokenizers/regex_reader.h"

namespace qlora::data {

struct RegexReader::Members {
  std::vector<CodeSet::Range> ranges = {};
  std::optional<char32_t> last = std::nullopt;  // the member before, if a range may begin with it
  bool in_range = false;                        // it and a '-' were read
  bool after_hyphen = false;                    // of which a range or itself becomes

  void add(const CodeSet& set) {
    ranges.insert(ranges.end(), set.ranges().begin(), set.ranges().end());
  }
};

CodeSet RegexReader::bracket_class() {
  Members members;
  // A '-' that comes next and makes no range.
  const auto keep_hyphen = [&] {
    members.last.reset();
    if (next_is("-")) {
      skip(1);
      members.add(CodeSet('-'));
      members.last = '-';
    }
  };
  // A closing bracket that comes first stands for itself.
  const auto keep_bracket = [&] {
    if (next_is("]")) {
      skip(1);
      members.add(CodeSet(']'));
      members.last = ']';
    }
  };
  skip(1);
  const bool is_negated = next_is("^");
  if (is_negated) skip(1);
  keep_bracket();
  int depth = 1;
  while (depth > 0) {
    if (at_end()) refuse("a class without its closing bracket");
    const bool is_hyphen = next_is("-");
    if (next_is("[") && !next_is("[:")) {
      if (members.after_hyphen) refuse("a class behind a '-'");
      ++depth;
      skip(1);
      if (next_is("^")) refuse("a negated class inside a class");
      next_is("]") ? keep_bracket() : keep_hyphen();
    } else if (next_is("]")) {
      skip(1);
      if (--depth > 0) keep_hyphen();
    } else {
      class_member(members);
    }
    members.after_hyphen = is_hyphen;
  }
  const CodeSet set(std::move(members.ranges));
  return is_negated ? set.complement() : set;
}

void RegexReader::class_member(Members& members) {
  const size_t begin = index_;
  if (next_is("[:")) return add_set(members, begin, posix_class());
  if (next_is("&&")) refuse("an intersection of classes");
  if (next_is("\\")) return class_escape(members);
  if (next_is("-") && members.last && !members.in_range && !next_is("-]")) {
    skip(1);
    members.in_range = true;
    return;
  }
  class_character(members);
}

void RegexReader::class_escape(Members& members) {
  const size_t begin = index_;
  const char letter = escaped_letter();
  if (letter == 'p' || letter == 'P') return add_set(members, begin, property());
  if (const auto set = escape_set(letter, true)) {
    skip(2);
    return add_set(members, begin, *set);
  }
  if (std::string_view("BRNO").find(letter) != std::string_view::npos)
    refuse(fmt::format("\\{} inside a class", letter));
  class_character(members);
}

// One that is itself, or the end of a range.
void RegexReader::class_character(Members& members) {
  const size_t begin = index_;
  char32_t code = 0;
  if (next_is("\\b") || next_is("\\v")) {
    code = next_is("\\b") ? '\b' : '\v';
    skip(2);
  } else {
    code = next_is("\\") ? escaped_character() : character();
  }
  if (ignores_case && code >= 0x80 && (members.after_hyphen || next_is("-")))
    refuse("a range beyond ASCII, without regard to case,");
  if (!members.in_range) {
    members.add(set_of(code));
    members.last = code;
    return;
  }
  if (*members.last > code) {
    index_ = begin;
    reject("range out of order in a class");
  }
  members.ranges.push_back({*members.last, code});
  for (char32_t one = *members.last; ignores_case && one <= code; ++one) members.add(set_of(one));
  members.last.reset();
  members.in_range = false;
}

// A set, which was read from `begin` on: a '-' beside it makes no range.
void RegexReader::add_set(Members& members, size_t begin, const CodeSet& set) {
  const std::string_view notation = pattern_.substr(begin, index_ - begin);
  if (ignores_case && notation != "\\s" && notation != "\\d" && notation != "\\h") {
    index_ = begin;
    refuse(fmt::format("{} in a class, without regard to case,", notation));
  }
  if (members.in_range) members.add(CodeSet('-'));
  members.in_range = false;
  members.add(set);
  members.last.reset();
  if (next_is("-") && !next_is("-]")) {
    skip(1);
    members.add(CodeSet('-'));
    members.last = '-';
  }
}

}  // namespace qlora::data
