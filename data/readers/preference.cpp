#include "data/readers/preference.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "data/readers/reader.h"
#include "fmt/ranges.h"

namespace qlora::data {
namespace {

using Keys = std::vector<std::string>;

// What data sets call an answer, in front of "_a" and "_b" or with "s" for several.
constexpr std::array kAnswers = {"answer", "completion", "generation", "output",
                                 "reply",  "response",   "summary",    "candidate"};
// The two sides of a comparison.
constexpr std::array<std::array<std::string_view, 2>, 6> kSides = {
    {{"_a", "_b"}, {"_j", "_k"}, {"_0", "_1"}, {"_1", "_2"}, {"0", "1"}, {"1", "2"}}};

bool holds_answer(const Json& row, const std::string& key) {
  const auto found = row.find(key);
  return found != row.end() && (found->is_string() || found->is_array() || found->is_object());
}

// "chosen", "chosen_response", "score_chosen".
bool has_word(const std::string& key, const std::string& word) {
  return key == word || key.starts_with(word + "_") || key.ends_with("_" + word);
}

Keys keys_with(const Json& row, std::initializer_list<const char*> words) {
  Keys keys;
  for (const auto& [key, value] : row.items())
    if (!value.is_null() && std::any_of(words.begin(), words.end(),
                                        [&](const char* word) { return has_word(key, word); }))
      keys.push_back(key);
  return keys;
}

Keys chosen_and_rejected(const Json& row) {
  const Keys chosen = keys_with(row, {"chosen"}), rejected = keys_with(row, {"rejected"});
  const bool alone = holds_answer(row, "chosen") || holds_answer(row, "rejected");
  if (!alone && (chosen.empty() || rejected.empty())) return {};
  return keys_with(row, {"chosen", "rejected", "margin", "score"});
}

Keys two_answers(const Json& row) {
  for (const std::string answer : kAnswers)
    for (const auto& [one, other] : kSides) {
      Keys pair = {answer + std::string(one), answer + std::string(other)};
      if (holds_answer(row, pair[0]) && holds_answer(row, pair[1])) return pair;
    }
  return {};
}

// {"completions": [...], "scores": [...]}
Keys answers_with_scores(const Json& row) {
  const auto is_list = [&](const std::string& key) {
    return row.contains(key) && row[key].is_array();
  };
  for (const std::string answer : kAnswers)
    for (const char* score : {"labels", "scores", "rewards", "ratings", "ranks", "ranking"})
      for (const std::string& answers : {answer + "s", answer})
        if (is_list(answers) && is_list(score)) return {answers, score};
  return {};
}

// KTO: one answer, and whether it was liked.
Keys liked_or_not(const Json& row, const DatasetOptions& dataset) {
  Keys keys = keys_with(row, {"kto_tag"});
  const auto label = row.find("label");
  if (find_format(dataset.format).has_turns && label != row.end() && label->is_boolean())
    keys.emplace_back("label");
  return keys;
}

bool is_mapped(const DatasetOptions& dataset, const Keys& keys) {
  return std::any_of(dataset.fields.begin(), dataset.fields.end(), [&](const auto& field) {
    return std::find(keys.begin(), keys.end(), field.second) != keys.end();
  });
}

void refuse(const Keys& keys, const std::string& cure, const DatasetOptions& dataset) {
  if (keys.empty() || is_mapped(dataset, keys)) return;
  fail<FormatError>(
      "this is preference data, by its {} {}: format {} trains on demonstrations only, one answer "
      "a row that is to be learnt; {}",
      keys.size() == 1 ? "key" : "keys", fmt::join(keys, ", "), dataset.format, cure);
}

std::string cure_of_chosen(const Json& row) {
  constexpr const char* kBoth =
      "to learn from both answers, set format: preference and train.objective: dpo (or orpo); ";
  const auto advice = [kBoth](const char* format, const char* field) {
    return fmt::format(
        "{}to learn the preferred answers alone, set format: {} and fields: {{{}: chosen}}", kBoth,
        format, field);
  };
  if (row.contains("chosen") && row["chosen"].is_array()) return advice("chat", "messages");
  if (row.contains("chosen") && row.contains("instruction")) return advice("alpaca", "output");
  if (row.contains("chosen") && row.contains("prompt") && row["prompt"].is_string())
    return advice("completion", "completion");
  return std::string(kBoth) +
         "or keep the preferred answer of each row as its answer, and leave the other out";
}

}  // namespace

void refuse_preference_data(const Json& row, const DatasetOptions& dataset) {
  refuse(chosen_and_rejected(row), cure_of_chosen(row), dataset);
  refuse(two_answers(row), "keep the better answer of each row, in a field of its own", dataset);
  refuse(answers_with_scores(row), "keep the best answer of each row, in a field of its own",
         dataset);
  refuse(liked_or_not(row, dataset), "keep the rows that were liked, and leave the key out",
         dataset);
}

}  // namespace qlora::data
