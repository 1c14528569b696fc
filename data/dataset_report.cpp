#include "data/dataset_report.h"

#include "base/error.h"
#include "data/prompt_encoder.h"
#include "io/json_text.h"
#include "nlohmann/json.hpp"

namespace qlora::data {
namespace {

void audit(const DatasetReport& report) {
  if (report.examples == 0) {
    fail<ConfigError>(
        "{}: no example is left to train on ({} rows; {} too long, {} without a supervised token); "
        "raise data.sequence_length or change data.on_overlength",
        report.path, report.rows, report.dropped_overlength, report.dropped_unsupervised);
  }
  if (report.supervised_tokens == 0) {
    fail<ConfigError>("{}: none of the {} tokens is supervised, so nothing would be learnt",
                      report.path, report.tokens);
  }
  if (report.double_bos > 0) {
    fail<ConfigError>(
        "{}: {} of {} examples begin with two BOS tokens; remove the BOS text from the rows, or "
        "one "
        "of the two from data.chat_template",
        report.path, report.double_bos, report.examples);
  }
  if (report.has_turns && report.end_of_turns == 0) {
    fail<ConfigError>(
        "{}: no answer of the {} examples ends with a supervised end-of-turn token, so the model "
        "would never learn to stop; {}",
        report.path, report.examples,
        report.truncated + report.split > 0
            ? "every end was cut off: raise data.sequence_length or set data.on_overlength: drop"
            : "set data.chat_template to one whose end of turn is a special token of the model");
  }
}

}  // namespace

void audit_datasets(const std::vector<DatasetReport>& reports) {
  for (const DatasetReport& report : reports) audit(report);
}

std::vector<std::string> dataset_warnings(const DatasetReport& report, const Tokenizer& tokenizer) {
  std::vector<std::string> warnings;
  const PromptEncoder encoder(tokenizer);
  for (const TokenId id : report.end_of_turn_ids) {
    if (encoder.ends_generation(id)) continue;
    warnings.push_back(fmt::format(
        "{}: answers end with {}, at which the model's own files do not stop a generation; whoever "
        "serves the adapter must add it as a stop token",
        report.path, tokenizer.id_to_token(id)));
  }
  if (report.tools_unwritten > 0) {
    warnings.push_back(
        fmt::format("{}: {} rows have tools, but the chat template does not write them, so the "
                    "model never sees "
                    "them; set data.chat_template to one that does",
                    report.path, report.tools_unwritten));
  }
  return warnings;
}

std::string to_text(const DatasetReport& report) {
  std::string text = fmt::format("{} ({}): {} rows, {} examples", report.path, report.format,
                                 report.rows, report.examples);
  const auto count = [&](int64_t number, const char* what) {
    if (number > 0) text += fmt::format(", {} {}", number, what);
  };
  count(report.rendered - report.rows, "more because the template rewrites earlier turns");
  count(report.dropped_overlength, "dropped as too long");
  count(report.truncated, "truncated");
  if (report.split > 0)
    text += fmt::format(", {} split into {} pieces", report.split, report.pieces);
  count(report.dropped_unsupervised, "dropped without a supervised token");
  text +=
      fmt::format("\n  {} tokens, {} supervised ({:.1f} %), longest row {} tokens", report.tokens,
                  report.supervised_tokens, 100.0 * report.supervised_share(), report.longest);
  if (report.has_turns) text += fmt::format(", {} ends of turn", report.end_of_turns);
  return text;
}

std::string to_json(const DatasetReport& report) {
  const nlohmann::ordered_json json = {
      {"path", report.path},
      {"format", report.format},
      {"rows", report.rows},
      {"rendered", report.rendered},
      {"dropped_overlength", report.dropped_overlength},
      {"truncated", report.truncated},
      {"split", report.split},
      {"pieces", report.pieces},
      {"dropped_unsupervised", report.dropped_unsupervised},
      {"examples", report.examples},
      {"tokens", report.tokens},
      {"supervised_tokens", report.supervised_tokens},
      {"longest", report.longest},
      {"longest_row", report.longest_row},
      {"end_of_turns", report.end_of_turns},
      {"double_bos", report.double_bos},
      {"tools_unwritten", report.tools_unwritten},
      {"end_of_turn_ids", report.end_of_turn_ids},
  };
  return io::json_text_in_utf8(json);
}

}  // namespace qlora::data
