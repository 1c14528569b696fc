// Every row of every tool's table: its keys with values of all kinds, and its defaults.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "recipes/import/import_recipe.h"
#include "recipes/import/tool.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/imported_recipe.h"

namespace qlora::recipes {
namespace {
using test::imported;
using test::keys_with;
using testing::IsEmpty;

// "a.b" with a value, as YAML; patterns get an ending.
std::string file_with(std::string name, const std::string& value) {
  if (name.ends_with('*')) name.back() = 'x';
  std::string yaml = value;
  while (!name.empty()) {
    const size_t dot = name.rfind('.');
    std::string part = dot == std::string::npos ? name : name.substr(dot + 1);
    name.resize(dot == std::string::npos ? 0 : dot);
    const bool is_list = part.ends_with("[]");
    if (is_list) part.resize(part.size() - 2);
    yaml = fmt::format(fmt::runtime(is_list ? "{{{}: [{}]}}" : "{{{}: {}}}"), part, yaml);
  }
  return yaml;
}

TEST(ImportTables, EveryKeyIsTakenOrToldWhyNotWhateverItsValueIs) {
  for (const Tool& tool : tools())
    for (const ToolKey& key : tool.keys)
      for (const char* value : {"1", "true", "false", "word", "0.5", "[a, b]", "{a: b}", "\"\""}) {
        const std::string file = file_with(key.name, value);
        SCOPED_TRACE(tool.name + ": " + file);
        const ImportedRecipe recipe = imported(file, tool.name);
        EXPECT_FALSE(recipe.outcomes.empty());
        if (std::string(value) != "{a: b}") {
          EXPECT_THAT(keys_with(recipe, Fate::kUnknown), IsEmpty());
        }
        for (const Outcome& outcome : recipe.outcomes) {
          EXPECT_EQ(outcome.fate == Fate::kMapped, !outcome.here.empty()) << outcome.key;
          EXPECT_EQ(outcome.fate == Fate::kMapped, outcome.reason.empty()) << outcome.key;
        }
      }
}

TEST(ImportTables, NoToolHasAKeyTwice) {
  for (const Tool& tool : tools())
    for (const ToolKey& key : tool.keys)
      EXPECT_EQ(std::count_if(tool.keys.begin(), tool.keys.end(),
                              [&](const ToolKey& other) { return other.name == key.name; }),
                1)
          << tool.name << ": " << key.name;
}

TEST(ImportTables, DefaultsAreTakenHere) {
  for (const Tool& tool : tools())
    for (const ToolDefault& standard : tool.defaults) {
      ProblemList none("");
      const Node value = parse_override(standard.value, "", none);
      EXPECT_EQ(problem_of_value(standard.here, value), "") << tool.name << ": " << standard.here;
    }
}

}  // namespace
}  // namespace qlora::recipes
