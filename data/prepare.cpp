#include "data/prepare.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/seed.h"
#include "data/chat_renderer.h"
#include "data/dataset.h"
#include "data/permutation.h"

namespace qlora::data {
namespace {

using RowKey = std::pair<int32_t, int64_t>;  // dataset, row

RowKey row_of(const Example& example) { return {example.source, example.row}; }

void append(const std::vector<DatasetOptions>& datasets, const DataOptions& options,
            const Tokenizer& tokenizer, const ChatTemplate* chat_template,
            std::vector<Example>& examples, std::vector<DatasetReport>& reports) {
  for (size_t i = 0; i < datasets.size(); ++i) {
    Dataset dataset =
        read_dataset(datasets[i], static_cast<int32_t>(i), options, tokenizer, chat_template);
    std::move(dataset.examples.begin(), dataset.examples.end(), std::back_inserter(examples));
    reports.push_back(std::move(dataset.report));
  }
}

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

}  // namespace

PreparedData prepare_datasets(const DataOptions& options, const Tokenizer& tokenizer,
                              const ChatTemplate* chat_template, uint64_t seed) {
  options.validate();
  PreparedData data;
  append(options.train, options, tokenizer, chat_template, data.train, data.train_reports);
  append(options.eval, options, tokenizer, chat_template, data.eval, data.eval_reports);
  audit_datasets(data.train_reports);
  audit_datasets(data.eval_reports);
  for (const auto* reports : {&data.train_reports, &data.eval_reports}) {
    for (const DatasetReport& report : *reports) {
      for (std::string& warning : dataset_warnings(report, tokenizer)) {
        data.warnings.push_back(std::move(warning));
      }
    }
  }
  if (chat_template != nullptr && ChatRenderer(*chat_template, tokenizer).writes_the_date()) {
    data.warnings.emplace_back(
        "the chat template writes today's date into every prompt: resumed on another day, the run "
        "would see other rows and is refused; set data.chat_template to a copy without "
        "strftime_now");
  }
  if (options.eval_fraction > 0.0) split_off_eval(options.eval_fraction, seed, data);
  return data;
}

}  // namespace qlora::data
