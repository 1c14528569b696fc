// A set of code points.
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <vector>

namespace qlora::data {

class CodeSet {
 public:
  static constexpr char32_t kLast = 0x10FFFF;

  struct Range {
    char32_t first, last;
    auto operator<=>(const Range&) const = default;
  };

  CodeSet() = default;
  // Of ranges in any order, which may overlap.
  explicit CodeSet(std::vector<Range> ranges);
  explicit CodeSet(char32_t code) : ranges_{{code, code}} {}

  // All others.
  CodeSet complement() const;
  bool contains(char32_t code) const;
  // In order, none beside another.
  const std::vector<Range>& ranges() const { return ranges_; }

  auto operator<=>(const CodeSet&) const = default;

 private:
  std::vector<Range> ranges_;
};

// As a class of regular expressions, "[\x{41}-\x{5A}\x{61}]", where characters go up to `last`.
// Surrogates, which no text has, are left out.
std::string class_text(const CodeSet& set, char32_t last);

}  // namespace qlora::data
