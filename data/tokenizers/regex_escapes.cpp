#include "data/tokenizers/regex_escapes.h"

#include <map>

namespace qlora::data {

// Oniguruma's word characters in a class: those of Unicode Technical Standard 18; outside of one
// also Latin-1's numbers.
#define QLORA_CLASS_WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define QLORA_WORD QLORA_CLASS_WORD "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"

const Respelled* respelled(char letter) {
  static const std::map<char, Respelled> table = {
      {'s', {"\\p{White_Space}", "\\p{White_Space}"}},
      {'S', {"\\P{White_Space}", "\\P{White_Space}"}},
      {'w', {QLORA_CLASS_WORD, "[" QLORA_WORD "]"}},
      {'W', {nullptr, "[^" QLORA_WORD "]"}},
      {'b',
       {"\\b",
        "(?:(?<=[" QLORA_WORD "])(?![" QLORA_WORD "])|(?<![" QLORA_WORD "])(?=[" QLORA_WORD "]))"}},
      {'B',
       {nullptr,
        "(?:(?<=[" QLORA_WORD "])(?=[" QLORA_WORD "])|(?<![" QLORA_WORD "])(?![" QLORA_WORD "]))"}},
      {'h', {"0-9A-Fa-f", "[0-9A-Fa-f]"}},
      {'H', {nullptr, "[^0-9A-Fa-f]"}},
      {'d', {"\\p{Nd}", "\\p{Nd}"}},
      {'D', {"\\P{Nd}", "\\P{Nd}"}},
      {'v', {"\\x0B", "\\x0B"}},
      {'R', {nullptr, "(?>\\r\\n|[\\n-\\r\\x{85}\\x{2028}\\x{2029}])"}},
      {'N', {nullptr, "[^\\n]"}},
      {'O', {nullptr, "(?s:.)"}},
  };
  const auto entry = table.find(letter);
  return entry == table.end() ? nullptr : &entry->second;
}

}  // namespace qlora::data
