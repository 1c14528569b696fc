// What the program says of other tools' names is held against the keys it has.
#include "recipes/fields/other_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "base/error.h"
#include "recipes/fields/fields.h"
#include "recipes/fields/later_keys.h"
#include "recipes/import/tool.h"
#include "recipes/yaml/recipe_yaml.h"

namespace qlora::recipes {
namespace {
using testing::HasSubstr;
using testing::Not;

constexpr const char* kSmall =
    "model: {path: m}\n"
    "data: {train: [{path: rows.jsonl}]}\n"
    "train: {max_steps: 3}\n"
    "output: {dir: run}\n";

std::string refusal(const std::vector<std::string>& overrides) {
  try {
    parse_recipe(kSmall, "r.yaml", "/base", overrides);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

std::set<std::string> own_keys() {
  const std::vector<std::string> keys = all_keys();
  return {keys.begin(), keys.end()};
}

std::string last_part(const std::string& key) { return key.substr(key.rfind('.') + 1); }

TEST(OtherNames, PointToKeysThatTheProgramHas) {
  const std::set<std::string> keys = own_keys();
  for (const OtherName& other : other_names()) {
    EXPECT_TRUE(other.here.empty() || keys.contains(other.here) || !later_key(other.here).empty())
        << other.name;
  }
}

TEST(OtherNames, TheValuesTheyAdviseAreTaken) {
  for (const OtherName& other : other_names()) {
    if (other.value.empty()) continue;
    EXPECT_EQ(refusal({other.here + "=" + other.value}), "") << other.name;
  }
}

TEST(OtherNames, WhatIsSaidToNeedNoKeyHasNone) {
  std::set<std::string> words;
  for (const std::string& key : all_keys()) words.insert(last_part(key));
  for (const OtherName& other : other_names()) {
    EXPECT_FALSE(other.here.empty() && words.contains(last_part(other.name))) << other.name;
  }
}

TEST(OtherNames, NoneClaimsThatSomethingIsMissing) {
  const std::set<std::string> keys = own_keys();
  for (const OtherName& other : other_names()) {
    EXPECT_THAT(other.note, Not(HasSubstr("not in this version"))) << other.name;
    if (keys.contains(other.here)) {
      EXPECT_THAT(other_name_sentence(other), Not(HasSubstr("not in this version"))) << other.name;
    }
  }
}

// What `qlora import` does with a key and what a recipe that has it is told come from one table.
TEST(OtherNames, SayOfEveryKeyThatIsImportedWhatTheImportMakesOfIt) {
  std::map<std::string, std::set<std::string>> imported;
  for (const Tool& tool : tools())
    for (const ToolKey& key : tool.keys)
      if (!key.here.empty() && key.name.find('[') == std::string::npos)
        imported[key.name].insert(key.here);
  EXPECT_GT(imported.size(), 100U);
  for (const auto& [name, here] : imported) {
    const OtherName* other = find_other_name("", name);
    ASSERT_NE(other, nullptr) << name;
    EXPECT_TRUE(here.contains(other->here)) << name << ": " << other->here;
  }
}

TEST(OtherNames, WhatAnImportRefusesIsToldWithTheSameReason) {
  for (const Tool& tool : tools())
    for (const ToolKey& key : tool.keys) {
      if (!key.is_refused || key.name.find_first_of(".[*") != std::string::npos) continue;
      EXPECT_NE(find_other_name("", key.name), nullptr) << key.name;
    }
  EXPECT_THAT(refusal({"deepspeed=zero2.json"}), HasSubstr("model.device_map: ranks"));
  for (const char* revision : {"model_revision=v1", "revision_of_model=v1", "model.revision=v1"})
    EXPECT_THAT(refusal({revision}), HasSubstr("model.path here: write org/name@REV")) << revision;
  EXPECT_THAT(refusal({"wandb_project=mine"}), HasSubstr("without a key; leave it out"));
}

TEST(OtherNames, EightBitsLoftqAndDoraAreToldByTheirKeys) {
  EXPECT_THAT(refusal({"load_in_8bit=true"}), HasSubstr("quantization.method here: write int8"));
  EXPECT_THAT(refusal({"use_dora=true"}), HasSubstr("it is lora.use_dora here"));
  EXPECT_THAT(refusal({"peft_use_dora=true"}), HasSubstr("it is lora.use_dora here"));
  EXPECT_THAT(refusal({"loftq_bits=4"}), HasSubstr("it is lora.init here: write loftq"));
  EXPECT_THAT(refusal({"logging_steps=10"}), HasSubstr("it is train.log_every here"));
}

// Of each key of later work that takes words: whether the options themselves refuse the word.
bool is_taken(const std::string& key, const std::string& word) {
  Recipe recipe;
  try {
    if (key == "quantization.method") {
      recipe.quantization.method = word;
      recipe.quantization.validate();
    } else if (key == "lora.init") {
      recipe.lora.init = word;
      recipe.lora.validate();
    } else if (key == "optim.name") {
      recipe.optim.name = word;
      recipe.optim.validate();
    } else {
      recipe.data.train = {{"rows.jsonl", word, {}}};
      recipe.data.validate();
    }
  } catch (const ConfigError&) {
    return false;
  }
  return true;
}

TEST(LaterKeys, AreNoneThatTheProgramHas) {
  const std::set<std::string> keys = own_keys();
  for (const LaterKey& later : later_keys()) {
    if (later.values.empty()) {
      EXPECT_FALSE(keys.contains(later.key)) << later.key;
      continue;
    }
    EXPECT_TRUE(keys.contains(later.key)) << later.key;
    std::istringstream words(later.values);
    for (std::string word; words >> word;)
      EXPECT_FALSE(is_taken(later.key, word)) << later.key << ": " << word;
  }
}

// The words behind "use": "default, gaussian, ... or olora" and "adamw or adamw_8bit, or ...".
std::set<std::string> advised_words(const std::string& instead) {
  std::string list = instead.substr(instead.rfind("use ") + 4);
  list = list.substr(0, list.find(", or "));
  std::ranges::replace(list, ',', ' ');
  std::istringstream words(list);
  std::set<std::string> advised;
  for (std::string word; words >> word;)
    if (word != "or") advised.insert(word);
  return advised;
}

TEST(LaterKeys, AdviseWhatTheProgramTakes) {
  for (const LaterKey& later : later_keys()) {
    if (later.values.empty() || later.key == "quantization.method") continue;
    for (const std::string& word : advised_words(later.instead))
      EXPECT_TRUE(is_taken(later.key, word)) << later.key << ": " << word;
  }
  EXPECT_THAT(refusal({"lora.init=eva"}),
              HasSubstr("use default, gaussian, orthogonal, loftq, pissa or olora"));
}

// By full key: the words of a type such as "auto | bfloat16 | float32", but for those that stand
// for values of a kind.
std::map<std::string, std::set<std::string>> lists_of_values() {
  std::map<std::string, std::set<std::string>> lists;
  for (const Section& section : sections())
    for (const Field<Recipe>& field : section.fields) {
      if (field.type.find(" | ") == std::string::npos) continue;
      std::istringstream words(field.type);
      for (std::string word; words >> word;)
        if (word != "|" && word != "path" && word != "map" && word != "integer")
          lists[section.name + "." + field.key].insert(word);
    }
  return lists;
}

// "a, b or c" in a sentence, each with its words.
std::vector<std::set<std::string>> lists_in(const std::string& sentence) {
  std::vector<std::set<std::string>> lists;
  static const std::regex list("[\\w:]+(, [\\w:]+)* or [\\w:]+");
  for (std::sregex_iterator at(sentence.begin(), sentence.end(), list), end; at != end; ++at) {
    std::string text = std::regex_replace(at->str(), std::regex(",| or "), " ");
    std::istringstream words(text);
    lists.emplace_back(std::istream_iterator<std::string>(words),
                       std::istream_iterator<std::string>());
  }
  return lists;
}

// Of a key that the note names, or that the name is explained by: two or more of its values in a
// list, and not all of them.
std::string left_out(const std::string& here, const std::string& note) {
  for (const auto& [key, values] : lists_of_values()) {
    if (here != key && note.find(key) == std::string::npos) continue;
    for (const std::set<std::string>& listed : lists_in(note)) {
      std::vector<std::string> common, missing;
      std::ranges::set_intersection(values, listed, std::back_inserter(common));
      std::ranges::set_difference(values, listed, std::back_inserter(missing));
      if (common.size() > 1 && !missing.empty()) return key + ": " + missing.front();
    }
  }
  return "";
}

TEST(OtherNames, ANoteThatListsValuesOfAKeyLeavesNoneOut) {
  EXPECT_EQ(left_out("train.compute_dtype", "write bfloat16 or float32"),
            "train.compute_dtype: auto");
  EXPECT_EQ(left_out("", "products are bfloat16, float16 or float32 (train.compute_dtype)"),
            "train.compute_dtype: auto");
  for (const OtherName& other : other_names()) {
    if (other.name != "rl") {  // whose own words are listed: it has none for sft
      EXPECT_EQ(left_out(other.here, other.note), "") << other.name << ": " << other.note;
    }
  }
  for (const Tool& tool : tools())
    for (const ToolKey& key : tool.keys) {
      if (key.name != "rl") {
        EXPECT_EQ(left_out(key.here, key.note), "") << tool.name << ": " << key.name;
      }
    }
  EXPECT_THAT(refusal({"precision=16-true"}),
              HasSubstr("write auto, bfloat16, float16 or float32"));
  EXPECT_THAT(refusal({"eval_packing=true"}), HasSubstr("data.packing"));
}

// Runs on several processes came after the tables of other tools' keys.
TEST(OtherNames, NoToolIsToldThatARunIsOneProcess) {
  for (const Tool& tool : tools())
    for (const ToolKey& key : tool.keys)
      EXPECT_THAT(key.note, Not(HasSubstr("is one process"))) << tool.name << ": " << key.name;
}

}  // namespace
}  // namespace qlora::recipes
