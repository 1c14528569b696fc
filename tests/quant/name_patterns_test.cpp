#include "quant/prequantized/name_patterns.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "quant/prequantized/compressed_groups.h"
#include "quant/prequantized/module_settings.h"

namespace qlora::quant {
namespace {

using nlohmann::json;
using testing::ElementsAre;

constexpr int kMany = 20000;
constexpr int kBits[] = {2, 3, 4, 8};

std::string expert(int number) {
  return fmt::format("model.layers.{}.mlp.experts.{}.up_proj", number / 256, number % 256);
}

// As auto-round's extra_config becomes them.
std::string escaped(const std::string& name) {
  std::string pattern;
  for (const char c : name) pattern += c == '.' ? "\\." : std::string(1, c);
  return pattern + "$";
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(NamePatterns, WhatIsLookedUpMatchesAsARegularExpressionDoes) {
  const json nothing;
  const io::JsonNode node(nothing, "config.json");
  const std::vector<std::string> patterns = {
      "a.b",    "a\\.b",   "a\\.b$", "^a\\.b$", "^a",   "a.b$", "",       "^",         "$",
      "^$",     "a\\$",    "a\\\\$", ".",       "..$",  "a\\[", "a\\.b.", "a\\.b\\.c", "a.b.c$",
      "(a|b).", "[ab]\\.", "a+",     "a\\.b?$", ".*b$", "a^b",  "a$b",    "a\\d",      "a\\.b{1}$"};
  const std::vector<std::string> names = {"",     "a",     "b",     "a.b",   "a.bc", "a.b.c", "axb",
                                          "axbc", "axbxc", "xa.b",  "a$",    "a\\",  "a[",    "ab",
                                          "a\nb", "a\rb",  "a.b\n", "aa.b.", "a1",   "b."};
  NamePatterns all;
  for (const std::string& pattern : patterns) all.add_pattern(pattern, node);
  for (const std::string& name : names) {
    std::vector<size_t> expected;
    for (size_t number = 0; number < patterns.size(); ++number)
      if (std::regex_search(name, std::regex(patterns[number]),
                            std::regex_constants::match_continuous))
        expected.push_back(number);
    EXPECT_EQ(all.matching(name), expected) << name;
    EXPECT_EQ(all.matching(name), expected) << name << ", asked again";
  }
}

TEST(NamePatterns, ANameIsNoPattern) {
  NamePatterns all;
  all.add_name("a.b");
  all.add_name("Linear");
  all.add_name("a.b");
  EXPECT_THAT(all.matching("a.b"), ElementsAre(0, 2));
  EXPECT_THAT(all.matching("axb"), ElementsAre());
  EXPECT_THAT(all.matching("a.b.c"), ElementsAre());
}

TEST(NamePatterns, WhatIsTooLongIsRefusedWithItsPlace) {
  const json nothing;
  const io::JsonNode node(nothing, "config.json.dynamic.x");
  NamePatterns all;
  all.add_pattern(std::string(kLongestPattern, 'a'), node);
  EXPECT_THROW(all.add_pattern(std::string(kLongestPattern + 1, 'a'), node), FormatError);
  EXPECT_THROW(all.add_pattern("(", node), FormatError);
}

TEST(SettingsOfModules, ComeInTheOrderOfTheirTextsHoweverTheyAreFound) {
  const json config = {{"bits", 4},
                       {"group_size", 32},
                       {"dynamic",
                        {{"+:a\\.q$", {{"bits", 2}}},
                         {".*q", {{"bits", 3}}},
                         {"a.q", {{"group_size", 16}}},
                         {"a\\.q", {{"bits", 8}}},
                         {"-:.*k$", json::object()}}}};
  const SettingsOfModules settings(io::JsonNode(config, "config.json"), kBits);
  const auto texts = [&](const std::string& module) {
    std::vector<std::string> said;
    for (const ModuleSettings& one : settings.of(module))
      said.push_back(fmt::format("{}/{}", one.bits, one.group_size));
    return said;
  };
  EXPECT_THAT(texts("a.q"), ElementsAre("2/32", "3/32", "4/16", "8/32", "4/32"));
  EXPECT_THAT(texts("a.qkv"), ElementsAre("3/32", "4/16", "8/32", "4/32"));
  EXPECT_THAT(texts("axq"), ElementsAre("3/32", "4/16", "4/32"));
  EXPECT_THAT(texts("a.k"), ElementsAre("4/32"));
}

// By a regular expression for each name, this takes minutes.
TEST(SettingsOfModules, TwentyThousandNamesAreReadAndFoundAtOnce) {
  const auto start = std::chrono::steady_clock::now();
  for (const bool dotted : {false, true}) {
    json config = {{"bits", 4}, {"group_size", 32}, {"dynamic", json::object()}};
    for (int i = 0; i < kMany; ++i)
      config["dynamic"][dotted ? expert(i) : escaped(expert(i))] = {{"bits", i % 2 ? 2 : 8}};
    config["dynamic"][".*experts\\.7\\.up"] = {{"bits", 3}};
    const SettingsOfModules settings(io::JsonNode(config, "config.json"), kBits);
    for (int i = 0; i < kMany; ++i) {
      const int first = i % 256 == 7 ? 3 : i % 2 ? 2 : 8;
      // A pattern need not reach the end of a name; no name here begins with another.
      ASSERT_EQ(settings.of(expert(i)).front().bits, first) << expert(i);
      settings.warn_of_other_sizes(expert(i), 64, first, 32);
    }
  }
  EXPECT_LT(seconds_since(start), 6);
}

TEST(CompressedGroups, TwentyThousandTargetsAreReadAndFoundAtOnce) {
  json config = {{"config_groups", json::object()}};
  const auto add = [&](const std::string& name, int bits, json targets) {
    config["config_groups"][name] = {
        {"weights", {{"type", "int"}, {"num_bits", bits}, {"strategy", "channel"}}},
        {"targets", std::move(targets)}};
  };
  json names = json::array(), patterns = json::array();
  for (int i = 0; i < kMany; ++i) {
    if (i % 2)
      names.push_back(expert(i));
    else
      patterns.push_back("re:" + escaped(expert(i)));
  }
  add("a", 8, std::move(names));
  add("b", 3, std::move(patterns));
  add("c", 2, json::array({"re:.*experts\\.[0-9]+\\."}));
  add("d", 4, json::array({"Linear"}));
  const auto start = std::chrono::steady_clock::now();
  const CompressedGroups groups(io::JsonNode(config, "config.json"));
  for (int i = 0; i < kMany; ++i) ASSERT_EQ(groups.of(expert(i))->bits, i % 2 ? 8 : 3) << expert(i);
  EXPECT_EQ(groups.of("model.layers.99.mlp.experts.1.up_proj")->bits, 2);
  EXPECT_EQ(groups.of("lm_head")->bits, 4);
  EXPECT_LT(seconds_since(start), 3);
}

}  // namespace
}  // namespace qlora::quant
