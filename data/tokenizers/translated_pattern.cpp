#include "data/tokenizers/translated_pattern.h"

#include <algorithm>
#include <iterator>

#include "base/utf8.h"

namespace qlora::data {

size_t TranslatedPattern::original(size_t offset) const {
  const auto behind =
      std::ranges::upper_bound(steps, offset, {}, &std::pair<size_t, size_t>::first);
  return behind == steps.begin() ? 0 : std::prev(behind)->second;
}

TranslatedPattern ParsedPattern::translate(
    const std::function<std::string(const CodeSet&)>& spell) const {
  std::vector<std::string> spelled;
  for (const CodeSet& set : sets) spelled.push_back(spell(set));
  TranslatedPattern translated;
  for (const Step& step : steps) {
    translated.steps.emplace_back(translated.text.size(), step.original);
    translated.text += step.text;
    if (step.set >= 0) translated.text += spelled[static_cast<size_t>(step.set)];
  }
  return translated;
}

std::string quoted_pattern(std::string_view pattern, size_t offset) {
  return utf8_around(pattern, offset, 60);
}

}  // namespace qlora::data
