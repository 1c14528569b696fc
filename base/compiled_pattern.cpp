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

}  // namespace qlora
