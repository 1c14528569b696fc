#include "cli/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/device.h"
#include "base/error.h"
#include "base/log.h"
#include "cli/evaluation_results.h"
#include "cli/model_choice.h"
#include "cli/stop_signal.h"
#include "data/cache/cached_dataset.h"
#include "data/chat_renderer.h"
#include "data/dataset.h"
#include "data/prepare.h"
#include "data/row_source.h"
#include "data/tokenizers/generation_config.h"
#include "io/json_text.h"
#include "model/position_limit.h"
#include "recipes/fields/fields.h"
#include "recipes/models/model_tokens.h"
#include "recipes/models/original_base.h"
#include "recipes/run/long_rows.h"
#include "recipes/yaml/dataset_choice.h"
#include "trainer/evaluate.h"

namespace {

using qlora::cli::EvaluationResult;
using qlora::data::DatasetOptions;
using qlora::recipes::TrainedModel;
using qlora::trainer::Evaluation;

struct EvaluateArguments {
  qlora::recipes::ModelChoice choice;
  std::vector<std::string> files, overrides;
  std::map<std::string, std::string> dataset_keys;  // of --data, as in a recipe: "format", ...
  bool exact_match = false, compare_base = false, json = false;
  int64_t max_new_tokens = 128, show = 2;
};

bool sets_key(const EvaluateArguments& arguments, const std::string& key) {
  return std::any_of(
      arguments.overrides.begin(), arguments.overrides.end(),
      [&](const std::string& override_text) { return override_text.starts_with(key + "="); });
}

struct Rows {
  std::vector<std::string> paths;  // of the datasets, by source
  qlora::data::Examples examples;
  std::vector<qlora::data::PromptAndAnswer> questions;
};

// Of prompts whose rows are cut, which are asked whole.
void require_room(const Rows& rows, const qlora::model::Architecture& architecture) {
  const auto limit = qlora::model::position_limit(architecture);
  const auto is_long = [&](const qlora::data::PromptAndAnswer& question) {
    return std::ssize(question.prompt) >= limit.tokens;
  };
  const auto found = std::ranges::find_if(rows.questions, is_long);
  if (found == rows.questions.end()) return;
  qlora::fail<qlora::ConfigError>(
      "{}: --exact-match: the prompt has {} tokens, which leaves no room for an answer within the "
      "model's {} positions ({}; {} such rows in all). --set data.sequence_length={} --set "
      "data.on_overlength=drop leaves such rows out",
      found->location, found->prompt.size(), limit.tokens, limit.said_by,
      std::ranges::count_if(rows.questions, is_long), limit.tokens);
}

// A loss on rows that were dropped or cut is not that of the files: what training prints of them.
void warn_of_length(const qlora::data::DatasetReport& report) {
  if (report.beyond_length() + report.dropped_unsupervised > 0)
    qlora::log::write_warning(qlora::data::to_text(report));
}

// The rows that the run set aside of its training data (data.eval_fraction), by the same seed.
Rows rows_set_aside(const TrainedModel& trained, bool with_questions) {
  const auto& recipe = trained.recipe;
  const auto& base = trained.base;
  const qlora::data::PreparedData data = qlora::data::prepare_datasets(
      recipe.data_as_read(), *base.tokenizer, base.chat_template.get(), recipe.train.seed,
      qlora::recipes::model_tokens(base.model->architecture()));
  for (const std::string& note : data.cache_notes) qlora::log::write_info(note);
  for (const auto& report : data.train_reports) warn_of_length(report);
  Rows rows;
  rows.examples = data.eval;
  qlora::recipes::check_row_lengths(rows.examples, recipe.data.train, base.model->architecture());
  std::set<std::pair<int32_t, int64_t>> chosen;  // dataset, row
  for (const qlora::data::ExampleView& example : rows.examples)
    chosen.emplace(example.source, example.row);
  for (const DatasetOptions& dataset : recipe.data.train) rows.paths.push_back(dataset.path);
  for (size_t i = 0; with_questions && i < recipe.data.train.size(); ++i)
    for (auto& question : qlora::data::read_prompts_and_answers(
             recipe.data.train[i], static_cast<int32_t>(i), recipe.data, *base.tokenizer,
             base.chat_template.get(), qlora::recipes::model_tokens(base.model->architecture())))
      if (chosen.contains({static_cast<int32_t>(i), question.row}))
        rows.questions.push_back(std::move(question));
  require_room(rows, base.model->architecture());
  return rows;
}

// Those of --data, or of the recipe; rows in the format that the run was trained on, if not told.
std::vector<DatasetOptions> chosen_datasets(const qlora::data::DataOptions& options,
                                            const EvaluateArguments& arguments) {
  if (arguments.files.empty()) return options.eval;
  const DatasetOptions start = !options.eval.empty()    ? options.eval.front()
                               : !options.train.empty() ? options.train.front()
                                                        : DatasetOptions{};
  std::vector<DatasetOptions> datasets;
  for (const std::string& file : arguments.files)
    datasets.push_back(qlora::recipes::dataset_choice(file, start, arguments.dataset_keys));
  return datasets;
}

// The keys by which rows are read, checked.
qlora::data::DataOptions options_for(const qlora::data::DataOptions& given,
                                     const qlora::model::Architecture& architecture,
                                     const std::vector<DatasetOptions>& datasets,
                                     const EvaluateArguments& arguments) {
  qlora::data::DataOptions options = given;
  const bool is_said =
      !arguments.choice.run_dir.empty() || sets_key(arguments, "data.sequence_length");
  const int64_t reach =
      is_said ? architecture.longest_document() : qlora::model::position_limit(architecture).tokens;
  options.length_is_models = !is_said || options.sequence_length > reach;
  if (options.length_is_models) options.sequence_length = reach;
  options.train = datasets;
  options.eval.clear();
  options.eval_fraction = 0;
  options.validate();
  return options;
}

void warn_of_rows(const qlora::data::DatasetReport& report, const DatasetOptions& dataset,
                  const TrainedModel& trained) {
  warn_of_length(report);
  for (const std::string& warning : qlora::data::dataset_warnings(report, *trained.base.tokenizer))
    qlora::log::write_warning(warning);
  const std::string sentence = qlora::data::trained_on_sentence(dataset, trained.recipe.data);
  if (!sentence.empty()) qlora::log::write_warning(sentence);
}

Rows read_rows(const TrainedModel& trained, const EvaluateArguments& arguments) {
  const auto datasets = chosen_datasets(trained.recipe.data, arguments);
  if (datasets.empty() && trained.recipe.data.eval_fraction > 0)
    return rows_set_aside(trained, arguments.exact_match);
  if (datasets.empty()) throw qlora::ConfigError("give the rows to evaluate on with --data FILE");
  const qlora::data::DataOptions options =
      options_for(trained.recipe.data, trained.base.model->architecture(), datasets, arguments);
  Rows rows;
  const auto& base = trained.base;
  for (size_t i = 0; i < datasets.size(); ++i) {
    const auto part = qlora::data::load_dataset(
        datasets[i], static_cast<int32_t>(i), options, *base.tokenizer, base.chat_template.get(),
        qlora::recipes::model_tokens(base.model->architecture()));
    qlora::data::require_examples(part.report, "evaluate on");
    warn_of_rows(part.report, datasets[i], trained);
    for (const std::string& note : part.notes) qlora::log::write_info(note);
    rows.paths.push_back(datasets[i].path);
    rows.examples.append(part.examples);
    if (!arguments.exact_match) continue;
    const auto questions = qlora::data::read_prompts_and_answers(
        datasets[i], static_cast<int32_t>(i), options, *base.tokenizer, base.chat_template.get(),
        qlora::recipes::model_tokens(base.model->architecture()));
    rows.questions.insert(rows.questions.end(), questions.begin(), questions.end());
  }
  qlora::recipes::check_row_lengths(rows.examples, datasets, base.model->architecture());
  require_room(rows, base.model->architecture());
  return rows;
}

// A stop leaves nothing half-written in the data cache.
Rows read_rows_or_leave(const TrainedModel& trained, const EvaluateArguments& arguments) {
  const qlora::cli::StopSignalsWatched watched;
  Rows rows = read_rows(trained, arguments);
  qlora::cli::StopSignalsWatched::leave_behind_rows();
  return rows;
}

// What is wrong with the files themselves, before a model is loaded for them.
void look_at_files(const EvaluateArguments& arguments) {
  for (const std::string& file : arguments.files)
    qlora::data::RowSource(
        qlora::recipes::dataset_choice(file, DatasetOptions{}, arguments.dataset_keys))
        .next(1);
  qlora::recipes::Recipe ignored;
  qlora::recipes::set_data_keys(arguments.overrides, ignored);
}

bool sets_template(const EvaluateArguments& arguments) {
  return sets_key(arguments, "data.chat_template") || sets_key(arguments, "data.prompt_style");
}

// What is wrong with the options by which rows are read and with the first rows, before the
// weights are.
void look_at_rows(const EvaluateArguments& arguments, qlora::recipes::Recipe recipe,
                  const qlora::recipes::BaseText& base) {
  constexpr int64_t kFirstRows = 64;
  qlora::recipes::set_data_keys(arguments.overrides, recipe);
  std::unique_ptr<qlora::data::ChatTemplate> chosen;
  if (sets_template(arguments))
    chosen = qlora::data::choose_chat_template(recipe.data, base.tokenizer);
  const auto* chat_template = chosen ? chosen.get() : base.chat_template;
  const auto datasets = chosen_datasets(recipe.data, arguments);
  if (datasets.empty()) return;
  const auto options = options_for(recipe.data, base.architecture, datasets, arguments);
  for (size_t i = 0; i < datasets.size(); ++i)
    qlora::data::read_first_rows(datasets[i], static_cast<int32_t>(i), kFirstRows, options,
                                 base.tokenizer, chat_template,
                                 qlora::recipes::model_tokens(base.architecture));
}

TrainedModel open(const EvaluateArguments& arguments) {
  look_at_files(arguments);
  qlora::recipes::ModelChoice choice = arguments.choice;
  choice.before_loading = [&](const auto& recipe, const auto& base) {
    look_at_rows(arguments, recipe, base);
  };
  TrainedModel trained = qlora::recipes::open_model(choice);
  qlora::recipes::set_data_keys(arguments.overrides, trained.recipe);
  if (sets_template(arguments))
    trained.base.chat_template =
        qlora::data::choose_chat_template(trained.recipe.data, *trained.base.tokenizer);
  return trained;
}

bool are_pairs(const Rows& rows) {
  return !rows.examples.empty() && rows.examples.front().side != qlora::data::Side::kNone;
}

// Turns what was found of all answers of pairs into what is told of them.
void compare_answers(const Rows& rows, EvaluationResult& result) {
  const std::vector<qlora::trainer::RowLoss>& losses = result.loss.rows;
  double nll = 0;
  int64_t likelier = 0, tokens = 0, supervised = 0;
  for (size_t i = 0; i + 1 < losses.size(); i += 2) {
    likelier += losses[i].nll < losses[i + 1].nll;
    nll += losses[i].nll;
    tokens += rows.examples[i].length();
    supervised += losses[i].supervised_tokens;
  }
  result.likelier = likelier;
  result.loss.loss = nll / static_cast<double>(std::max<int64_t>(supervised, 1));
  result.loss.tokens = tokens;
  result.loss.supervised_tokens = supervised;
}

// NaN is no loss that could be compared with another.
void require_numbers(const Evaluation& evaluation) {
  for (const qlora::trainer::RowLoss& row : evaluation.rows)
    if (!std::isfinite(row.nll))
      qlora::fail<qlora::DivergenceError>(
          "row {}: the loss must be a number, found {}: the adapter or the base holds values that "
          "are not finite or too large to compute with, as after a training that diverged",
          row.row, row.nll);
}

EvaluationResult evaluate(const TrainedModel& trained, const Rows& rows, const std::string& name,
                          bool adapters, const EvaluateArguments& arguments) {
  EvaluationResult result;
  result.name = name;
  result.datasets = rows.paths;
  result.loss = qlora::trainer::evaluate_loss(*trained.base.model, rows.examples, adapters);
  require_numbers(result.loss);
  if (are_pairs(rows)) compare_answers(rows, result);
  if (arguments.exact_match) {
    result.exact =
        qlora::trainer::evaluate_exact_match(*trained.base.model, *trained.base.tokenizer,
                                             rows.questions, arguments.max_new_tokens, adapters);
  }
  return result;
}

// The model in place of `trained`'s base and adapter, which are given up first: memory may not hold
// both.
void open_original(const qlora::recipes::Recipe& recipe, const EvaluateArguments& arguments,
                   TrainedModel& trained) {
  trained.adapters.reset();
  trained.base.model.reset();
  qlora::log::info(
      "before: the original {}, quantized alike; the base that was trained on lacks what its "
      "adapter began with",
      recipe.model.path);
  auto tokenizer_in_use = std::move(trained.base.tokenizer);
  auto template_in_use = std::move(trained.base.chat_template);
  trained.base =
      qlora::recipes::load_base(recipe, qlora::device_from_string(arguments.choice.device));
  trained.base.tokenizer = std::move(tokenizer_in_use);
  trained.base.chat_template = std::move(template_in_use);
}

std::vector<EvaluationResult> evaluate_all(TrainedModel& trained,
                                           const EvaluateArguments& arguments) {
  const bool has_adapter = trained.adapters != nullptr;
  const bool compares = has_adapter && arguments.compare_base;
  std::optional<qlora::recipes::Recipe> original;
  if (compares && qlora::recipes::adapter_holds_part_of(trained.base))
    original = qlora::recipes::recipe_of_original_base(arguments.choice, trained);
  const Rows rows = read_rows_or_leave(trained, arguments);
  if (arguments.exact_match)
    qlora::data::warn_of_generation_keys(*trained.base.tokenizer, trained.base.path);
  std::vector<EvaluationResult> results;
  if (!original && (compares || !has_adapter))
    results.push_back(evaluate(trained, rows, has_adapter ? "before" : "base", false, arguments));
  if (has_adapter)
    results.push_back(evaluate(trained, rows, compares ? "after" : "trained", true, arguments));
  if (original) {
    open_original(*original, arguments, trained);
    results.insert(results.begin(), evaluate(trained, rows, "before", false, arguments));
  }
  return results;
}

void run(const EvaluateArguments& arguments) {
  TrainedModel trained = open(arguments);
  const std::vector<EvaluationResult> results = evaluate_all(trained, arguments);
  if (arguments.json) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const EvaluationResult& result : results) all.push_back(to_json(result));
    fmt::print("{}\n", qlora::io::json_text_in_utf8(all, 2));
    return;
  }
  print_table(results);
  print_answers(results, arguments.show);
}

}  // namespace

void add_evaluate_command(qlora::cli::Command app) {
  auto arguments = std::make_shared<EvaluateArguments>();
  qlora::cli::Command command = app.add_subcommand(
      "evaluate", "Loss and perplexity on rows of a file, and whether answers match exactly");
  qlora::cli::add_model_choice(command, arguments->choice);
  command.add_option("--data", arguments->files,
                     "Rows (default: those of the run's recipe, data.eval or data.eval_fraction)");
  for (const auto& field : qlora::recipes::dataset_fields())
    if (field.key != "path" && field.key != "weight")
      command.add_option(qlora::recipes::dataset_option(field.key),
                         arguments->dataset_keys[field.key],
                         "Of --data, as in a recipe (default: the run's): " + field.type);
  command.add_option("--set", arguments->overrides,
                     "key=value of the recipe's section data, e.g. data.chat_template=chatml");
  command.add_flag("--exact-match", arguments->exact_match,
                   "Also answer each row greedily and compare to the letter, white space at both "
                   "ends aside");
  command.add_flag("--compare-base", arguments->compare_base,
                   "Also evaluate the base without the adapter; the original, if lora.init changed "
                   "it");
  command.add_option("--max-new-tokens", arguments->max_new_tokens, "Longest answer")
      .positive()
      .with_shown_default();
  command.add_option("--show", arguments->show, "Answers to print")
      .not_negative()
      .with_shown_default();
  command.add_flag("--json", arguments->json, "Everything as JSON, with the loss of each row");
  command.callback([arguments] { run(*arguments); });
}
