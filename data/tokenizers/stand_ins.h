// Keeps an installed PCRE2's tables out of a match. Characters that were added to Unicode, or
// became what they are, after version 14 (PCRE2 10.40), and those that a future one may assign, are
// exchanged for a character that every PCRE2 knows to be of the same kind (category, Alphabetic)
// and that takes as many bytes: all offsets stay. A stand-in lies on the same side of every
// character that the pattern names, and is of the same script if the pattern names that; where
// there is none, the character stays.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qlora::data {

class StandIns {
 public:
  // What a pattern names are its characters and its \x{...} and \uHHHH, and scripts as \p{...}.
  explicit StandIns(std::string_view pattern);

  // `text` (valid UTF-8) with stand-ins; nothing if none is needed.
  std::optional<std::string> replace(std::string_view text) const;

 private:
  struct Range {
    char32_t first, last, stand_in;
  };
  const Range* find(char32_t code) const;

  std::vector<Range> ranges_;  // in order
};

}  // namespace qlora::data
