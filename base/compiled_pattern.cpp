#include "base/compiled_pattern.h"

#include <cstddef>
#include <unordered_map>
#include <utility>

namespace qlora {

const std::regex& compiled_pattern(const std::string& text) {
  constexpr size_t kMost = 1000;  // more than a recipe has
  thread_local std::unordered_map<std::string, std::regex> compiled;
  if (const auto found = compiled.find(text); found != compiled.end()) return found->second;
  std::regex pattern(text);
  if (compiled.size() == kMost) compiled.clear();
  return compiled.emplace(text, std::move(pattern)).first->second;
}

std::string pattern_fault(const std::string& pattern, const std::regex_error& error) {
  bool has_atom = false, in_class = false;  // something to repeat; between [ and ]
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\') ++i;
    if (in_class) {
      in_class = c != ']';
    } else if (c == '*' || c == '+' || c == '?') {
      if (!has_atom)
        return std::string("'") + c + "' has nothing before it to repeat; '.*' means any text";
    } else if (c == '(' && i + 1 < pattern.size() && pattern[i + 1] == '?') {
      i += 2;  // of (?:, (?= and (?!
      has_atom = false;
    } else {
      in_class = c == '[';
      has_atom = c != '(' && c != '|' && c != '^';
    }
  }
  return error.what();
}

}  // namespace qlora
