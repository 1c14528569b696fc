#include "data/readers/preference.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "base/ascii_case.h"
#include "base/error.h"
#include "data/readers/reader.h"
#include "fmt/ranges.h"

namespace qlora::data {
namespace {

using Keys = std::vector<std::string>;

// What data sets call an answer, in front of "_a" and "_b" or with "s" for several.
constexpr std::array kAnswers = {"answer",   "completion", "generation", "output",      "reply",
                                 "response", "summary",    "candidate",  "conversation"};
// The two sides of a comparison.
constexpr std::array<std::array<std::string_view, 2>, 6> kSides = {
    {{"_a", "_b"}, {"_j", "_k"}, {"_0", "_1"}, {"_1", "_2"}, {"0", "1"}, {"1", "2"}}};

// The better and the worse answer under names of their own; OpenAI's first.
constexpr std::array<std::array<const char*, 2>, 8> kBetterAndWorse = {
    {{"preferred_output", "non_preferred_output"},
     {"preferred", "dispreferred"},
     {"preferred", "non_preferred"},
     {"positive", "negative"},
     {"pos", "neg"},
     {"winner", "loser"},
     {"win", "lose"},
     {"better", "worse"}}};
// What says of one answer whether it was liked.
constexpr std::array kVerdicts = {"label",       "kto_label", "desirable",   "is_desirable",
                                  "accepted",    "liked",     "is_accepted", "thumbs_up",
                                  "thumbs_down", "chosen",    "is_chosen",   "rejected",
                                  "is_rejected"};

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

// A rejected answer is preference data whatever else the row has: the chosen one may be the last of
// its messages.
Keys chosen_and_rejected(const Json& row) {
  const Keys chosen = keys_with(row, {"chosen"}), rejected = keys_with(row, {"rejected"});
  const bool alone = holds_answer(row, "chosen") ||
                     std::any_of(rejected.begin(), rejected.end(),
                                 [&](const std::string& key) { return holds_answer(row, key); });
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

Keys better_and_worse(const Json& row, const DatasetOptions& dataset) {
  if (!find_format(dataset.format).has_turns) return {};
  for (const auto& [better, worse] : kBetterAndWorse)
    if (holds_answer(row, better) && holds_answer(row, worse)) return {better, worse};
  return {};
}

// Yes or no, which the cells of tables hold as text.
bool is_switch(const Json& value) {
  if (value.is_number()) return value == 0 || value == 1;
  if (!value.is_string()) return value.is_boolean();
  std::string word = ascii_lower_case(value.get<std::string>());
  std::erase(word, ' ');
  return word == "true" || word == "false" || word == "0" || word == "1";
}

Keys verdicts(const Json& object) {
  Keys keys = keys_with(object, {"kto_tag"});
  for (const char* verdict : kVerdicts)
    if (const auto found = object.find(verdict); found != object.end() && is_switch(*found))
      keys.emplace_back(verdict);
  return keys;
}

// KTO: one answer, and whether it was liked. Rows of text may have a label as a class.
Keys liked_or_not(const Json& row, const DatasetOptions& dataset) {
  return find_format(dataset.format).has_turns ? verdicts(row) : keys_with(row, {"kto_tag"});
}

// The same, and rejected answers, in a row's messages: "messages[].label".
Keys of_messages(const Json& row, const DatasetOptions& dataset) {
  for (const char* list : {"messages", "conversations"}) {
    const auto mapped = dataset.fields.find(list);
    const std::string field = mapped == dataset.fields.end() ? list : mapped->second;
    if (!row.contains(field) || !row[field].is_array()) continue;
    for (const Json& message : row[field]) {
      if (!message.is_object()) continue;
      Keys keys = verdicts(message);
      if (keys.empty()) keys = chosen_and_rejected(message);
      for (std::string& key : keys) key = field + "[]." + key;
      if (!keys.empty()) return keys;
    }
  }
  return {};
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

std::string cure_of_pair(const Keys& pair) {
  if (pair.empty()) return "";
  const std::string openai = kBetterAndWorse[0][0];
  return fmt::format(
      "to learn from both answers, set train.objective: dpo (or orpo), format: preference{}; or "
      "keep the better answer of each row as its answer, and leave the other out",
      pair[0] == openai
          ? " and write the rows as {prompt, chosen, rejected}, the prompt being the messages of "
            "'input'"
          : fmt::format(" and fields: {{chosen: {}, rejected: {}}}", pair[0], pair[1]));
}

// Also where the key says something else, which cannot be told.
constexpr const char* kCureOfVerdict =
    "keep the rows that were liked, and leave the key out (also if it says something else)";

}  // namespace

std::string advice_on_preference_data(const Json& row, const DatasetOptions& dataset) {
  if (const Keys pair = better_and_worse(row, dataset);
      !pair.empty() && pair[0] == kBetterAndWorse[0][0])
    return "this is OpenAI's form: write the rows as {prompt, chosen, rejected}, the messages of "
           "'input' being the prompt";
  const Keys verdict = liked_or_not(row, dataset);
  if (!verdict.empty() && !row.contains("rejected"))
    return fmt::format(
        "one answer with a verdict ({}) is no pair, and this version does not learn from it: keep "
        "the rows that were liked, leave the key out and set the format of what is left",
        fmt::join(verdict, ", "));
  const Keys keys = chosen_and_rejected(row);
  if (keys.empty()) return "";
  for (const char* answer : kAnswers)
    if (holds_answer(row, answer))
      return fmt::format("if the preferred answer is '{}', set fields: {{chosen: {}}}", answer,
                         answer);
  return fmt::format(
      "beside {} the preferred answer, which may be the last of the row's messages, must stand in "
      "a "
      "field of its own, and the messages before it in another (fields: {{prompt: ..., chosen: "
      "..., rejected: ...}})",
      fmt::join(keys, ", "));
}

void refuse_preference_data(const Json& row, const DatasetOptions& dataset) {
  refuse(chosen_and_rejected(row), cure_of_chosen(row), dataset);
  refuse(two_answers(row), "keep the better answer of each row, in a field of its own", dataset);
  refuse(answers_with_scores(row), "keep the best answer of each row, in a field of its own",
         dataset);
  const Keys pair = better_and_worse(row, dataset);
  refuse(pair, cure_of_pair(pair), dataset);
  refuse(liked_or_not(row, dataset), kCureOfVerdict, dataset);
  refuse(of_messages(row, dataset),
         "keep the messages of which all answers were liked, and leave the keys out", dataset);
}

}  // namespace qlora::data
