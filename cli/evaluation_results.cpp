#include "cli/evaluation_results.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace qlora::cli {
namespace {

std::string on_one_line(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  return text;
}

}  // namespace

void print_table(const std::vector<EvaluationResult>& results) {
  fmt::print("{:<10} {:>9} {:>11} {:>8} {:>8}  {}\n", "model", "loss", "perplexity", "tokens",
             "seconds", results[0].exact ? "exact match" : "");
  for (const EvaluationResult& r : results) {
    std::string exact;
    if (r.exact) {
      const size_t rows = r.exact->answers.size();
      exact = fmt::format("{} of {} rows ({:.0f} %)", r.exact->matches, rows,
                          100.0 * static_cast<double>(r.exact->matches) /
                              static_cast<double>(std::max<size_t>(rows, 1)));
    }
    if (r.likelier)
      exact += fmt::format("{}chosen likelier in {} of {} pairs", exact.empty() ? "" : ", ",
                           *r.likelier, r.loss.rows.size() / 2);
    fmt::print("{:<10} {:>9.4f} {:>11.3f} {:>8} {:>8.1f}  {}\n", r.name, r.loss.loss,
               r.loss.perplexity(), r.loss.supervised_tokens,
               r.loss.seconds + (r.exact ? r.exact->seconds : 0.0), exact);
  }
}

void print_answers(const std::vector<EvaluationResult>& results, int64_t count) {
  if (!results[0].exact) return;
  const std::vector<std::string>& paths = results[0].datasets;
  const auto& first = results[0].exact->answers;
  for (size_t i = 0; i < first.size() && static_cast<int64_t>(i) < count; ++i) {
    fmt::print("\nrow {}{}\n  {:<10} {}\n", first[i].row,
               paths.size() > 1 ? " of " + paths.at(static_cast<size_t>(first[i].source)) : "",
               "expected", on_one_line(first[i].expected));
    for (const EvaluationResult& result : results)
      fmt::print("  {:<10} {}\n", result.name, on_one_line(result.exact->answers[i].generated));
  }
}

nlohmann::ordered_json to_json(const EvaluationResult& result) {
  nlohmann::ordered_json json = {{"model", result.name},
                                 {"loss", result.loss.loss},
                                 {"perplexity", result.loss.perplexity()},
                                 {"tokens", result.loss.tokens},
                                 {"supervised_tokens", result.loss.supervised_tokens},
                                 {"seconds", result.loss.seconds}};
  json["datasets"] = result.datasets;
  auto& rows = json["rows"] = nlohmann::ordered_json::array();
  for (const auto& row : result.loss.rows)
    rows.push_back({{"row", row.row},
                    {"dataset", row.source},
                    {"nll", row.nll},
                    {"supervised_tokens", row.supervised_tokens}});
  if (result.likelier) {
    json["pairs"] = result.loss.rows.size() / 2;
    json["chosen_likelier"] = *result.likelier;
  }
  if (!result.exact) return json;
  json["exact_match"] = result.exact->matches;
  auto& answers = json["answers"] = nlohmann::ordered_json::array();
  for (const auto& answer : result.exact->answers)
    answers.push_back({{"row", answer.row},
                       {"dataset", answer.source},
                       {"expected", answer.expected},
                       {"generated", answer.generated},
                       {"matches", answer.matches}});
  return json;
}

}  // namespace qlora::cli
