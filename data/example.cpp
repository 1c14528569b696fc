#include "data/example.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/faults.h"
#include "data/readers/reader.h"
#include "fmt/ranges.h"

namespace qlora::data {
namespace {

void validate_bounds(const DatasetOptions& dataset, const std::string& key, Faults& faults) {
  for (const auto& [name, value] :
       {std::pair{"max_rows", dataset.max_rows}, std::pair{"min_tokens", dataset.min_tokens},
        std::pair{"max_tokens", dataset.max_tokens}})
    if (value < 0) faults.add("{}.{} must not be negative, got {}", key, name, value);
  if (dataset.max_tokens > 0 && dataset.max_tokens < dataset.min_tokens)
    faults.add("{}.max_tokens must be at least min_tokens, which is {}, got {}", key,
               dataset.min_tokens, dataset.max_tokens);
}

void validate_dataset(const DatasetOptions& dataset, const std::string& key, Faults& faults) {
  if (dataset.path.empty()) faults.add("{}.path must name a file or a folder, it is empty", key);
  validate_bounds(dataset, key, faults);
  const Format* found = nullptr;
  if (!faults.collect([&] { found = &find_format(dataset.format, key + ".format"); })) return;
  const Format& format = *found;
  for (const auto& [ours, theirs] : dataset.fields) {
    if (std::find(format.fields.begin(), format.fields.end(), ours) == format.fields.end()) {
      faults.add("{}.fields: format {} has the fields {}, got '{}' (write ours: theirs)", key,
                 format.name, fmt::join(format.fields, ", "), ours);
    }
    if (theirs.empty()) faults.add("{}.fields.{} must name a field of the file", key, ours);
  }
  if (!dataset.separator.empty() && dataset.format != "completion" &&
      dataset.format != "input_output" && dataset.format != kPreferenceFormat) {
    faults.add(
        "{}.separator stands between prompt and completion, which format {} does not "
        "have; leave it out",
        key, dataset.format);
  }
  if (!dataset.system.empty() && !has_conversations(format)) {
    faults.add(
        "{}.system is a message of conversations, which rows of format {} are not; leave it out",
        key, dataset.format);
  }
}

void validate_weights(const std::vector<DatasetOptions>& train, Faults& faults) {
  const bool mixes = std::ranges::any_of(train, [](const auto& set) { return set.weight != 0; });
  for (size_t i = 0; i < train.size() && mixes; ++i)
    if (!(train[i].weight > 0 && std::isfinite(train[i].weight)))
      faults.add(
          "data.train[{}].weight must be above 0, got {}; give every dataset of data.train a "
          "weight, or none",
          i, train[i].weight);
}

bool holds_pairs(const DatasetOptions& dataset) { return dataset.format == kPreferenceFormat; }

// All rows are learnt from in one way.
void validate_pairs(const DataOptions& options, Faults& faults) {
  if (options.train.empty()) return;  // which is told already
  const bool pairs = options.has_pairs();
  for (const auto& [key, datasets] :
       {std::pair("data.train", &options.train), {"data.eval", &options.eval}})
    for (size_t i = 0; i < datasets->size(); ++i)
      if (holds_pairs((*datasets)[i]) != pairs)
        faults.add(
            "{}[{}].format is {}, that of data.train[0] is {}: pairs of answers (preference) and "
            "demonstrations (all other formats) are not trained in one run",
            key, i, (*datasets)[i].format, options.train[0].format);
  if (pairs && options.on_overlength == OnOverlength::kSplit)
    faults.add(
        "data.on_overlength: split has no meaning for pairs of answers, which are compared whole; "
        "use error, drop, truncate_left or truncate_right");
}

}  // namespace

void require_sequence_length(int64_t sequence_length) {
  if (sequence_length < kShortestSequence)
    fail<ConfigError>("data.sequence_length must be at least {}, got {}", kShortestSequence,
                      sequence_length);
}

bool DataOptions::has_pairs() const { return !train.empty() && holds_pairs(train.front()); }

bool DataOptions::trains_conversations() const {
  return std::ranges::any_of(train, [&](const DatasetOptions& dataset) {
    return dataset.format == "chat" || dataset.format == "sharegpt" ||
           dataset.format == kPreferenceFormat ||
           (dataset.format == "alpaca" && prompt_style == "chat_template");
  });
}

bool DataOptions::trains_alpaca_prompts() const {
  return prompt_style == "alpaca" && !trains_conversations() &&
         std::ranges::any_of(
             train, [](const DatasetOptions& dataset) { return dataset.format == "alpaca"; });
}

void DataOptions::validate() const { require_no_faults(*this); }

void DataOptions::find_faults(Faults& faults) const {
  if (train.empty()) faults.add("data.train must list at least one dataset");
  for (size_t i = 0; i < train.size(); ++i) {
    validate_dataset(train[i], fmt::format("data.train[{}]", i), faults);
  }
  validate_weights(train, faults);
  for (size_t i = 0; i < eval.size(); ++i) {
    validate_dataset(eval[i], fmt::format("data.eval[{}]", i), faults);
    if (eval[i].weight != 0)
      faults.add("data.eval[{}].weight has no meaning, every row is evaluated once; leave it out",
                 i);
  }
  validate_pairs(*this, faults);
  if (mix_by != "rows" && mix_by != "tokens")
    faults.add("data.mix_by must be rows or tokens, got '{}'", mix_by);
  if (!(eval_fraction >= 0.0 && eval_fraction < 1.0)) {
    faults.add("data.eval_fraction must be at least 0 and below 1, got {}", eval_fraction);
  }
  if (eval_fraction > 0.0 && !eval.empty()) {
    faults.add("data: set eval or eval_fraction, got both");
  }
  faults.collect([&] { require_sequence_length(sequence_length); });
  if (shuffle_block < 0)
    faults.add("data.shuffle_block must not be negative, got {}", shuffle_block);
  if (shuffle_block > 0 && !shuffle)
    faults.add(
        "data.shuffle_block is the size of what data.shuffle mixes, and that is false; leave one "
        "of the two out");
  if (shuffle_block > 0 && !train.empty() && train.front().weight > 0)
    faults.add(
        "data.shuffle_block keeps to the order of the files, and data.train[].weight mixes these; "
        "leave one of the two out");
  if (cache != "auto" && cache != "true" && cache != "false")
    faults.add("data.cache must be auto, true or false, got '{}'", cache);
  if (prompt_style != "chat_template" && prompt_style != "alpaca") {
    faults.add("data.prompt_style must be chat_template or alpaca, got '{}'", prompt_style);
  }
}

}  // namespace qlora::data
