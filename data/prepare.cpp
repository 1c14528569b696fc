#include "data/prepare.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/seed.h"
#include "data/cache/cached_dataset.h"
#include "data/chat_template.h"
#include "data/dataset.h"
#include "data/permutation.h"
#include "data/seen_rows.h"
#include "data/shards.h"

namespace qlora::data {
namespace {

// What was refused, so that all of it can be told together.
class Refusals {
 public:
  template <typename Work>
  void collect(const Work& work) {
    try {
      work();
    } catch (const ConfigError& error) {
      add(error.what(), false);
    } catch (const FormatError& error) {
      add(error.what(), true);
    }
  }
  void throw_if_any() const {
    if (text_.empty()) return;
    if (of_format_) throw FormatError(text_);
    throw ConfigError(text_);
  }

 private:
  void add(const std::string& sentence, bool of_format) {
    if (text_.find(sentence) != std::string::npos) return;  // one file, listed twice
    of_format_ = text_.empty() ? of_format : of_format_ && of_format;
    text_ += (text_.empty() ? "" : "\n") + sentence;
  }

  std::string text_;
  bool of_format_ = false;
};

// Calls visit(index of the example, number of its row); examples of one row are neighbours. Returns
// the number of rows.
template <typename Visit>
int64_t for_each_row_of(const Examples& examples, const Visit& visit) {
  int64_t rows = 0, row = -1, index = 0;
  int32_t source = -1;
  for (const ExampleView& example : examples) {
    if (rows == 0 || example.row != row || example.source != source) ++rows;
    row = example.row;
    source = example.source;
    visit(index++, rows - 1);
  }
  return rows;
}

void split_off_eval(double fraction, uint64_t seed, PreparedData& data) {
  const Examples all = data.train;
  const int64_t count = for_each_row_of(all, [](int64_t, int64_t) {});
  const auto chosen = static_cast<int64_t>(std::llround(fraction * static_cast<double>(count)));
  if (chosen == 0 || chosen == count) {
    fail<ConfigError>("data.eval_fraction {} of {} rows leaves no row to {}; choose another share",
                      fraction, count, chosen == 0 ? "evaluate on" : "train on");
  }
  std::vector<bool> evaluated(static_cast<size_t>(count));
  const uint64_t key = random_key(seed, "evaluation split");
  for (int64_t i = 0; i < chosen; ++i)
    evaluated[static_cast<size_t>(permuted_index(i, count, key, 0))] = true;
  std::vector<int64_t> train, eval;
  for_each_row_of(all, [&](int64_t index, int64_t row) {
    (evaluated[static_cast<size_t>(row)] ? eval : train).push_back(index);
  });
  data.train = all.chosen(std::move(train));
  data.eval = all.chosen(std::move(eval));
}

// Evaluation rows that are trained too: of the same file, or with the same tokens.
void warn_of_trained_evaluation(const DataOptions& options, PreparedData& data) {
  for (const DatasetOptions& eval : options.eval) {
    const std::string sentence = trained_on_sentence(eval, options);
    if (sentence.empty()) continue;
    data.warnings.push_back(sentence);
    return;
  }
  // Of the evaluation, which is small; there may be millions of training examples.
  std::map<std::string, int64_t> evaluated;
  for_each_example(data.eval,
                   [&](const ExampleView& example) { ++evaluated[example_fingerprint(example)]; });
  int64_t repeated = 0;
  for_each_example(data.train, [&](const ExampleView& example) {
    if (evaluated.empty()) return;
    if (const auto found = evaluated.extract(example_fingerprint(example)); !found.empty())
      repeated += found.mapped();
  });
  if (repeated > 0)
    data.warnings.push_back(
        fmt::format("{} of the {} evaluation examples are trained on too, token for token; the "
                    "evaluation loss will look better than it is",
                    repeated, data.eval.size()));
}

void warn(const DataOptions& options, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
          PreparedData& data) {
  for (const auto* reports : {&data.train_reports, &data.eval_reports})
    for (const DatasetReport& report : *reports) {
      if (std::string doubt = dataset_doubt(report, tokenizer); !doubt.empty())
        data.warnings.push_back(std::move(doubt));
      for (std::string& warning : dataset_warnings(report, tokenizer))
        data.warnings.push_back(std::move(warning));
    }
  if (chat_template != nullptr && chat_template->has_read_clock()) {
    data.warnings.emplace_back(
        "the chat template writes today's date into every prompt: resumed on another day, the run "
        "would see other rows and is refused; set data.chat_template to a copy without "
        "strftime_now");
  }
  warn_of_trained_evaluation(options, data);
}

}  // namespace

bool PreparedData::ends_early() const {
  return std::ranges::any_of(train_reports, &DatasetReport::ends_early);
}

std::string trained_on_sentence(const DatasetOptions& evaluated, const DataOptions& options) {
  for (const DatasetOptions& train : options.train)
    if (share_a_file(evaluated, train))
      return fmt::format(
          "{} is evaluated on and trained on: the loss says how well it is learnt by heart; hold "
          "rows out with data.eval_fraction, or in a file of their own",
          evaluated.path);
  return "";
}

PreparedData prepare_datasets(const DataOptions& options, const Tokenizer& tokenizer,
                              const ChatTemplate* chat_template, uint64_t seed,
                              const ModelTokens& model, const NeededRows* needed) {
  options.validate();
  check(needed == nullptr || deals_first_rows_first(options),
        "prepare_datasets: the first rows are not dealt out first, so that all are needed");
  PreparedData data;
  Refusals refusals;
  SeenRows seen;
  const auto read = [&](const std::vector<DatasetOptions>& datasets, Examples& examples,
                        std::vector<DatasetReport>& reports) {
    for (size_t i = 0; i < datasets.size(); ++i)
      refusals.collect([&] {
        const bool trained = &datasets == &options.train;
        LoadedDataset dataset =
            load_dataset(datasets[i], static_cast<int32_t>(i), options, tokenizer, chat_template,
                         model, trained ? needed : nullptr);
        if (options.deduplicate && trained) {
          dataset.report.repeated = seen.take_out_repeated(dataset.examples);
          if (dataset.report.repeated > 0) recount(dataset.examples, tokenizer, dataset.report);
        }
        dataset.report.max_rows = datasets[i].max_rows;
        audit_dataset(dataset.report, trained ? "train on" : "evaluate on", tokenizer,
                      options.audit);
        examples.append(dataset.examples);
        reports.push_back(std::move(dataset.report));
        std::ranges::move(dataset.notes, std::back_inserter(data.cache_notes));
      });
  };
  read(options.train, data.train, data.train_reports);
  read(options.eval, data.eval, data.eval_reports);
  refusals.throw_if_any();
  if (options.eval_fraction > 0.0) split_off_eval(options.eval_fraction, seed, data);
  warn(options, tokenizer, chat_template, data);
  return data;
}

}  // namespace qlora::data
