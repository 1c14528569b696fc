#include "recipes/yaml/problems.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <tuple>

#include "base/error.h"

namespace qlora::recipes {

std::string Place::str() const {
  return line > 0 ? fmt::format("{}:{}:{}", source, line, column) : source;
}

void ProblemList::add(const Place& place, const std::string& sentence) {
  problems_.push_back({place, sentence});
}

void ProblemList::add(const std::string& key, const std::string& sentence) {
  for (std::string part = key; !part.empty();) {
    if (const auto found = places_.find(part); found != places_.end())
      return add(found->second, sentence);
    const size_t end = part.find_last_of(".[");
    part.resize(end == std::string::npos ? 0 : end);
  }
  add(Place{file_}, sentence);
}

bool ProblemList::names_covered_key(const std::string& sentence) const {
  return std::any_of(covered_.begin(), covered_.end(), [&](const std::string& key) {
    return sentence.find(key) != std::string::npos;
  });
}

bool ProblemList::is_covered_within(const std::string& part) const {
  return std::any_of(covered_.begin(), covered_.end(), [&](const std::string& key) {
    return key == part ||
           (key.starts_with(part) && (key[part.size()] == '.' || key[part.size()] == '['));
  });
}

void ProblemList::throw_if_any() const {
  if (problems_.empty()) return;
  std::vector<Problem> sorted = problems_;
  const auto order = [](const Problem& p) {
    return std::tuple(p.place.line > 0 ? p.place.line : INT_MAX, p.place.column);
  };
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](const Problem& a, const Problem& b) { return order(a) < order(b); });
  std::string lines;
  for (const Problem& problem : sorted)
    lines += fmt::format("{}{}{}{}", lines.empty() ? "" : "\n", problem.place.str(),
                         problem.place.source.empty() ? "" : ": ", problem.sentence);
  throw ConfigError(lines);
}

}  // namespace qlora::recipes
