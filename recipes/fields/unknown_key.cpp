// What to tell about a key that a recipe does not have, in this order: it comes in a later version;
// another tool's name for a key of ours; a key of another section; another tool's name for what
// needs no key; a typing mistake.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/nearest_word.h"
#include "recipes/fields/fields.h"
#include "recipes/fields/later_keys.h"
#include "recipes/fields/other_names.h"

namespace qlora::recipes {
namespace {

std::string last_part(const std::string& key) { return key.substr(key.rfind('.') + 1); }

// Keys of the sections that end in this word, as "optim.lr".
std::vector<std::string> keys_called(const std::string& word) {
  std::vector<std::string> keys;
  for (const std::string& key : all_keys())
    if (last_part(key) == word && key.find("data.eval[]") == std::string::npos) keys.push_back(key);
  return keys;
}

std::vector<std::string> words_of_all_keys() {
  std::vector<std::string> words;
  for (const std::string& key : all_keys()) words.push_back(last_part(key));
  return words;
}

}  // namespace

std::string unknown_key_sentence(const std::string& section, const std::string& key,
                                 const std::vector<std::string>& known, ProblemList& problems) {
  const std::string unknown = fmt::format("unknown key '{}'", key);
  const std::string prefix = section.empty() ? "" : section + ".";
  if (const std::string later = later_key(prefix + key); !later.empty()) return later;
  const OtherName* other = find_other_name(section, key);
  if (other && !other->here.empty()) {
    problems.covered(other->here);
    return unknown + "; " + other_name_sentence(*other);
  }
  if (const std::vector<std::string> elsewhere = keys_called(key); !elsewhere.empty()) {
    for (const std::string& ours : elsewhere) problems.covered(ours);
    return fmt::format("{}; it is {} here", unknown, fmt::join(elsewhere, " or "));
  }
  if (other) return unknown + "; " + other_name_sentence(*other);
  if (const std::string near = nearest_word(key, known); !near.empty()) {
    problems.covered(prefix + near);
    return fmt::format("{}; did you mean '{}'?", unknown, near);
  }
  if (const std::string near = nearest_word(key, words_of_all_keys()); !near.empty()) {
    const std::vector<std::string> elsewhere = keys_called(near);
    for (const std::string& ours : elsewhere) problems.covered(ours);
    return fmt::format("{}; did you mean {}?", unknown, fmt::join(elsewhere, " or "));
  }
  return fmt::format("{}; {} has {}", unknown, section.empty() ? "a recipe" : section,
                     fmt::join(known, ", "));
}

}  // namespace qlora::recipes
