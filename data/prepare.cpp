#include "data/prepare.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/seed.h"
#include "data/chat_renderer.h"
#include "data/dataset.h"
#include "data/permutation.h"
#include "data/seen_rows.h"
#include "data/shards.h"

namespace qlora::data {
namespace {

using RowKey = std::pair<int32_t, int64_t>;  // dataset, row

std::string fingerprint_of(const Example& example) { return examples_fingerprint({example}); }

RowKey row_of(const Example& example) { return {example.source, example.row}; }

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

void split_off_eval(double fraction, uint64_t seed, PreparedData& data) {
  std::vector<RowKey> rows;  // examples of one row are neighbours
  for (const Example& example : data.train) {
    if (rows.empty() || rows.back() != row_of(example)) rows.push_back(row_of(example));
  }
  const auto count = static_cast<int64_t>(rows.size());
  const auto chosen = static_cast<int64_t>(std::llround(fraction * static_cast<double>(count)));
  if (chosen == 0 || chosen == count) {
    fail<ConfigError>("data.eval_fraction {} of {} rows leaves no row to {}; choose another share",
                      fraction, count, chosen == 0 ? "evaluate on" : "train on");
  }
  std::set<RowKey> eval_rows;
  const uint64_t key = random_key(seed, "evaluation split");
  for (int64_t i = 0; i < chosen; ++i) {
    eval_rows.insert(rows[static_cast<size_t>(permuted_index(i, count, key, 0))]);
  }
  const auto first_eval =
      std::stable_partition(data.train.begin(), data.train.end(),
                            [&](const Example& e) { return !eval_rows.contains(row_of(e)); });
  std::move(first_eval, data.train.end(), std::back_inserter(data.eval));
  data.train.erase(first_eval, data.train.end());
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
  for (const Example& example : data.eval) ++evaluated[fingerprint_of(example)];
  int64_t repeated = 0;
  for (auto example = data.train.begin(); example != data.train.end() && !evaluated.empty();
       ++example)
    if (const auto found = evaluated.extract(fingerprint_of(*example)); !found.empty())
      repeated += found.mapped();
  if (repeated > 0)
    data.warnings.push_back(
        fmt::format("{} of the {} evaluation examples are trained on too, token for token; the "
                    "evaluation loss will look better than it is",
                    repeated, data.eval.size()));
}

void warn(const DataOptions& options, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
          PreparedData& data) {
  for (const auto* reports : {&data.train_reports, &data.eval_reports})
    for (const DatasetReport& report : *reports)
      for (std::string& warning : dataset_warnings(report, tokenizer))
        data.warnings.push_back(std::move(warning));
  if (chat_template != nullptr && ChatRenderer(*chat_template, tokenizer).writes_the_date()) {
    data.warnings.emplace_back(
        "the chat template writes today's date into every prompt: resumed on another day, the run "
        "would see other rows and is refused; set data.chat_template to a copy without "
        "strftime_now");
  }
  warn_of_trained_evaluation(options, data);
}

}  // namespace

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
                              const ModelTokens& model) {
  options.validate();
  PreparedData data;
  Refusals refusals;
  SeenRows seen;
  const auto read = [&](const std::vector<DatasetOptions>& datasets, std::vector<Example>& examples,
                        std::vector<DatasetReport>& reports) {
    for (size_t i = 0; i < datasets.size(); ++i)
      refusals.collect([&] {
        Dataset dataset = read_dataset(datasets[i], static_cast<int32_t>(i), options, tokenizer,
                                       chat_template, model);
        if (options.deduplicate && &datasets == &options.train) {
          dataset.report.repeated = seen.take_out_repeated(dataset.examples);
          recount(dataset, tokenizer);
        }
        audit_datasets({dataset.report});
        std::move(dataset.examples.begin(), dataset.examples.end(), std::back_inserter(examples));
        reports.push_back(std::move(dataset.report));
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
