#include "recipes/fields/values_in_words.h"

#include "base/error.h"
#include "recipes/fields/fields.h"

namespace qlora::recipes {
namespace {

std::string type_of(const std::string& key) {
  for (const Section& section : sections())
    for (const Field<Recipe>& field : section.fields)
      if (section.name + "." + field.key == key) return field.type;
  return "";
}

}  // namespace

std::string values_in_words(const std::string& key) {
  constexpr std::string_view kBetween = " | ";
  std::string words = type_of(key);
  const size_t last = words.rfind(kBetween);
  check(last != std::string::npos, "{} is no key with a list of values", key);
  words.replace(last, kBetween.size(), " or ");
  for (size_t at = words.find(kBetween); at != std::string::npos; at = words.find(kBetween, at))
    words.replace(at, kBetween.size(), ", ");
  return words;
}

}  // namespace qlora::recipes
