#include "data/dataset_report.h"

#include <algorithm>

#include "base/error.h"
#include "data/chat_renderer.h"
#include "data/prompt_encoder.h"
#include "data/readers/unread_keys.h"
#include "fmt/ranges.h"
#include "io/json_text.h"
#include "nlohmann/json.hpp"

namespace qlora::data {
namespace {

// By what rows were left out of which none is left, and what brings them back.
[[noreturn]] void refuse_without_examples(const DatasetReport& report, const std::string& purpose) {
  std::vector<std::string> reasons, cures;
  const auto add = [&](int64_t number, const char* reason, const char* cure) {
    if (number == 0) return;
    reasons.push_back(fmt::format("{} {}", number, reason));
    cures.emplace_back(cure);
  };
  add(report.filtered, "outside of min_tokens and max_tokens",
      "change the data set's min_tokens or max_tokens");
  add(report.dropped_overlength, "too long",
      "raise data.sequence_length or change data.on_overlength");
  const bool was_cut = report.truncated + report.split > 0;
  add(report.dropped_unsupervised,
      was_cut ? "cut to where no token is supervised" : "without a supervised token",
      was_cut ? "raise data.sequence_length or change data.on_overlength"
              : "see what of them is trained with qlora inspect data (data.train_on, marks of "
                "turns, empty answers)");
  add(report.repeated, "repeated", "set data.deduplicate to false");
  if (report.max_rows > 0 && report.rows == report.max_rows)
    cures.push_back(
        fmt::format("raise max_rows, by which the first {} rows alone are read", report.max_rows));
  cures.erase(std::unique(cures.begin(), cures.end()), cures.end());
  const bool lacks_answers =
      report.rendered > 0 && report.dropped_unsupervised == report.rendered && !was_cut;
  fail<ConfigError>("{}: no example is left to {}{} ({} rows{}{}){}{}", report.path, purpose,
                    lacks_answers ? ": none of the tokens of its rows is supervised" : "",
                    report.rows, reasons.empty() ? "" : "; ", fmt::join(reasons, ", "),
                    cures.empty() ? "" : "; ", fmt::join(cures, ", or "));
}

std::vector<std::string> keys_of(const std::map<std::string, std::string>& map) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : map) keys.push_back(key);
  return keys;
}

// Formats of which a row's prompt is one field and no more.
bool reads_one_prompt(const std::string& format) {
  return format == "completion" || format == "input_output" || format == kPreferenceFormat;
}

// Whole conversations beside a prompt repeat it, mostly.
bool may_be_lost(const std::string& key) {
  return may_belong_to_prompt(key) && key != "messages" && key != "conversation" &&
         key != "history";
}

void warn_of_unread_keys(const DatasetReport& report, std::vector<std::string>& warnings) {
  const bool has_text_prompt = reads_one_prompt(report.format);
  std::vector<std::string> deciding, of_prompt;
  for (const auto& [key, field] : report.unread_keys) {
    if (!field.empty()) {
      warnings.push_back(
          fmt::format("{}: the rows' {} is not read; if it is what format {} calls {}, set fields: "
                      "{{{}: {}}}",
                      report.path, key, report.format, field, field, key));
    } else if (may_decide_training(key)) {
      deciding.push_back(key);
    } else if (has_text_prompt && may_be_lost(key)) {
      of_prompt.push_back(key);
    }
  }
  if (!of_prompt.empty())
    warnings.push_back(fmt::format(
        "{}: {} of the rows {} not read; what belongs to the prompt must stand in the one field "
        "that format {} reads as such",
        report.path, fmt::join(of_prompt, ", "), of_prompt.size() == 1 ? "is" : "are",
        report.format));
  if (deciding.empty()) return;
  warnings.push_back(fmt::format(
      "{}: {} of the rows {} not read and changes nothing; if that says what is to be trained, or "
      "how much, the rows are trained otherwise than meant (an assistant's turn is left out with "
      "weight: 0 in its message)",
      report.path, fmt::join(deciding, ", "), deciding.size() == 1 ? "is" : "are"));
}

void warn_of_absent_fields(const DatasetReport& report, std::vector<std::string>& warnings) {
  for (const auto& [field, key] : report.absent_fields)
    warnings.push_back(fmt::format(
        "{}: none of the rows has the key {}, which fields: {{{}: {}}} names, so they are read "
        "without {}{}; fields: {{{}: none}} says that there is none",
        report.path, key, field, key, field,
        report.unread_keys.empty()
            ? ""
            : fmt::format(" (keys not read: {})", fmt::join(keys_of(report.unread_keys), ", ")),
        field));
}

// What data.chat_template has to be for the model to learn where answers end.
std::string end_of_turn_cure(const Tokenizer& tokenizer) {
  const std::vector<std::string> names = builtin_templates_that_end(tokenizer);
  return fmt::format(
      "set data.chat_template to one whose end of turn is a special token of the model ({}), and "
      "stands within the {{% generation %}} block where it has such blocks",
      names.empty() ? "of the built-in ones none has that"
                    : fmt::format("of the built-in ones: {}", fmt::join(names, ", ")));
}

void warn_of_marks(const DatasetReport& report, std::vector<std::string>& warnings) {
  if (report.marks_overruled > 0) {
    warnings.push_back(fmt::format(
        "{}: {} rows mark turns as context only (weight: 0 and the like), which data.train_on: all "
        "trains all the same; set data.train_on: assistant to leave them out",
        report.path, report.marks_overruled));
  }
  if (report.marks_ignored > 0 && report.has_pairs) {
    warnings.push_back(fmt::format(
        "{}: {} rows mark turns of their prompt to be trained; of pairs only what stands behind "
        "the prompt is",
        report.path, report.marks_ignored));
  } else if (report.marks_ignored > 0) {
    warnings.push_back(fmt::format(
        "{}: {} rows mark turns to be trained that are not an assistant's; only an assistant's "
        "turns are (data.train_on: all trains everything)",
        report.path, report.marks_ignored));
  }
  if (report.others_compared > 0) {
    warnings.push_back(fmt::format(
        "{}: {} rows have answers of several turns, of which a user's or a tool's are compared and "
        "trained like the assistant's, as in TRL; move those that both answers have into the "
        "prompt",
        report.path, report.others_compared));
  }
}

}  // namespace

void require_examples(const DatasetReport& report, const std::string& purpose) {
  if (report.examples == 0) refuse_without_examples(report, purpose);
  if (report.supervised_tokens == 0) {
    fail<ConfigError>("{}: none of the {} tokens is supervised, so there is nothing to {}",
                      report.path, report.tokens, purpose);
  }
}

std::string dataset_doubt(const DatasetReport& report, const Tokenizer& tokenizer) {
  if (report.examples == 0) return "";
  if (report.double_bos > 0) {
    return fmt::format(
        "{}: {} of {} examples begin with two BOS tokens; remove the BOS text from the rows, or "
        "one of the two from data.chat_template",
        report.path, report.double_bos, report.examples);
  }
  if (report.has_turns && report.end_of_turns == 0) {
    return fmt::format(
        "{}: no answer of the {} examples ends with a supervised end-of-turn token, so the model "
        "would never learn to stop; {}",
        report.path, report.examples,
        report.truncated + report.split > 0
            ? "every end was cut off: raise data.sequence_length or set data.on_overlength: drop"
            : end_of_turn_cure(tokenizer));
  }
  return "";
}

void audit_dataset(const DatasetReport& report, const std::string& purpose,
                   const Tokenizer& tokenizer, bool doubts) {
  if (report.only_repeats()) return;
  require_examples(report, purpose);
  if (!doubts) return;
  if (const std::string doubt = dataset_doubt(report, tokenizer); !doubt.empty())
    fail<ConfigError>("{}. train.audit=false takes them as they are", doubt);
}

std::vector<std::string> dataset_warnings(const DatasetReport& report, const Tokenizer& tokenizer) {
  std::vector<std::string> warnings;
  if (report.only_repeats())
    warnings.push_back(
        fmt::format("{}: nothing of it is trained: its rows are those of earlier data sets, and "
                    "data.deduplicate leaves repeated ones out ({} of {} rows)",
                    report.path, report.repeated, report.rows));
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
        fmt::format("{}: {} rows have tools or results of tools, but the chat template does not "
                    "write them, so the model never sees them; set data.chat_template to one that "
                    "does",
                    report.path, report.tools_unwritten));
  }
  if (report.run_together > 0) {
    warnings.push_back(fmt::format(
        "{}: {} of {} rows have no white space between prompt and completion, which are joined as "
        "they are; if that is not meant, set separator: \"\\n\" (or \" \") for this data set",
        report.path, report.run_together, report.rows));
  }
  warn_of_marks(report, warnings);
  warn_of_unread_keys(report, warnings);
  warn_of_absent_fields(report, warnings);
  return warnings;
}

std::string to_text(const DatasetReport& report) {
  std::string text =
      fmt::format("{} ({}): {}{} rows, {} {}", report.path, report.format,
                  report.files > 1 ? fmt::format("{} files, ", report.files) : "", report.rows,
                  report.examples, report.has_pairs ? "pairs" : "examples");
  const auto count = [&](int64_t number, const char* what) {
    if (number > 0) text += fmt::format(", {} {}", number, what);
  };
  count(report.rendered - report.rows, "more because the template rewrites earlier turns");
  count(report.filtered, "left out by their length");
  count(report.repeated,
        report.has_pairs ? "pairs left out as repeated" : "rows left out as repeated");
  count(report.dropped_overlength, "dropped as too long");
  count(report.truncated, "truncated");
  if (report.split > 0)
    text += fmt::format(", {} split into {} pieces", report.split, report.pieces);
  count(report.dropped_unsupervised, "dropped without a supervised token");
  text +=
      fmt::format("\n  {} tokens, {} supervised ({:.1f} %), longest row {} tokens", report.tokens,
                  report.supervised_tokens, 100.0 * report.supervised_share(), report.longest);
  if (report.has_turns) text += fmt::format(", {} ends of turn", report.end_of_turns);
  if (report.ends_early)
    text += "\n  the run's steps need no more rows than these; any behind them were not read";
  if (!report.unread_keys.empty())
    text += fmt::format("\n  keys not read: {}", fmt::join(keys_of(report.unread_keys), ", "));
  return text;
}

std::string to_json(const DatasetReport& report) {
  const nlohmann::ordered_json json = {
      {"path", report.path},
      {"format", report.format},
      {"files", report.files},
      {"rows", report.rows},
      {"ends_early", report.ends_early},
      {"rendered", report.rendered},
      {"filtered", report.filtered},
      {"repeated", report.repeated},
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
      {"run_together", report.run_together},
      {"marks_overruled", report.marks_overruled},
      {"marks_ignored", report.marks_ignored},
      {"others_compared", report.others_compared},
      {"unread_keys", keys_of(report.unread_keys)},
      {"end_of_turn_ids", report.end_of_turn_ids},
  };
  return io::json_text_in_utf8(json);
}

}  // namespace qlora::data
