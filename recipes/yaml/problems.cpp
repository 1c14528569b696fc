#include "recipes/yaml/problems.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <climits>
#include <tuple>

#include "base/error.h"

namespace qlora::recipes {
namespace {

bool is_of_key(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// Whether `sentence` names `key` or what lies in it: lora.rank_pattern is another key than
// lora.rank. A section's name is a word of prose unless a key follows it.
bool names_key(const std::string& sentence, const std::string& key) {
  const bool is_section = key.find('.') == std::string::npos;
  for (size_t at = sentence.find(key); at != std::string::npos; at = sentence.find(key, at + 1)) {
    const size_t end = at + key.size();
    const char before = at == 0 ? ' ' : sentence[at - 1];
    const char after = end == sentence.size() ? ' ' : sentence[end];
    const char then = end + 1 < sentence.size() ? sentence[end + 1] : ' ';
    const bool leads_on = after == '[' || (after == '.' && is_of_key(then));
    if (is_of_key(before) || before == '.' || is_of_key(after)) continue;
    if (!is_section || leads_on || at == 0) return true;
  }
  return false;
}

}  // namespace

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
  return std::any_of(covered_.begin(), covered_.end(),
                     [&](const std::string& key) { return names_key(sentence, key); });
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
