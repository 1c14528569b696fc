#include "data/example.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "data/readers/reader.h"
#include "fmt/ranges.h"

namespace qlora::data {
namespace {

void validate_bounds(const DatasetOptions& dataset, const std::string& key) {
  for (const auto& [name, value] :
       {std::pair{"max_rows", dataset.max_rows}, std::pair{"min_tokens", dataset.min_tokens},
        std::pair{"max_tokens", dataset.max_tokens}})
    if (value < 0) fail<ConfigError>("{}.{} must not be negative, got {}", key, name, value);
  if (dataset.max_tokens > 0 && dataset.max_tokens < dataset.min_tokens)
    fail<ConfigError>("{}.max_tokens must be at least min_tokens, which is {}, got {}", key,
                      dataset.min_tokens, dataset.max_tokens);
}

void validate_dataset(const DatasetOptions& dataset, const std::string& key) {
  if (dataset.path.empty())
    fail<ConfigError>("{}.path must name a file or a folder, it is empty", key);
  const Format& format = find_format(dataset.format, key + ".format");
  for (const auto& [ours, theirs] : dataset.fields) {
    if (std::find(format.fields.begin(), format.fields.end(), ours) == format.fields.end()) {
      fail<ConfigError>("{}.fields: format {} has the fields {}, got '{}' (write ours: theirs)",
                        key, format.name, fmt::join(format.fields, ", "), ours);
    }
    if (theirs.empty()) fail<ConfigError>("{}.fields.{} must name a field of the file", key, ours);
  }
  if (!dataset.separator.empty() && dataset.format != "completion" &&
      dataset.format != "input_output" && dataset.format != kPreferenceFormat) {
    fail<ConfigError>(
        "{}.separator stands between prompt and completion, which format {} does not "
        "have; leave it out",
        key, dataset.format);
  }
  if (!dataset.system.empty() && !has_conversations(format)) {
    fail<ConfigError>(
        "{}.system is a message of conversations, which rows of format {} are not; leave it out",
        key, dataset.format);
  }
  validate_bounds(dataset, key);
}

void validate_weights(const std::vector<DatasetOptions>& train) {
  const bool mixes = std::ranges::any_of(train, [](const auto& set) { return set.weight != 0; });
  for (size_t i = 0; i < train.size() && mixes; ++i)
    if (!(train[i].weight > 0 && std::isfinite(train[i].weight)))
      fail<ConfigError>(
          "data.train[{}].weight must be above 0, got {}; give every dataset of data.train a "
          "weight, or none",
          i, train[i].weight);
}

bool holds_pairs(const DatasetOptions& dataset) { return dataset.format == kPreferenceFormat; }

// All rows are learnt from in one way.
void validate_pairs(const DataOptions& options) {
  const bool pairs = options.has_pairs();
  for (const auto& [key, datasets] :
       {std::pair("data.train", &options.train), {"data.eval", &options.eval}})
    for (size_t i = 0; i < datasets->size(); ++i)
      if (holds_pairs((*datasets)[i]) != pairs)
        fail<ConfigError>(
            "{}[{}].format is {}, that of data.train[0] is {}: pairs of answers (preference) and "
            "demonstrations (all other formats) are not trained in one run",
            key, i, (*datasets)[i].format, options.train[0].format);
  if (pairs && options.on_overlength == OnOverlength::kSplit)
    throw ConfigError(
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

void DataOptions::validate() const {
  if (train.empty()) fail<ConfigError>("data.train must list at least one dataset");
  for (size_t i = 0; i < train.size(); ++i) {
    validate_dataset(train[i], fmt::format("data.train[{}]", i));
  }
  validate_weights(train);
  for (size_t i = 0; i < eval.size(); ++i) {
    validate_dataset(eval[i], fmt::format("data.eval[{}]", i));
    if (eval[i].weight != 0)
      fail<ConfigError>(
          "data.eval[{}].weight has no meaning, every row is evaluated once; leave it out", i);
  }
  validate_pairs(*this);
  if (mix_by != "rows" && mix_by != "tokens")
    fail<ConfigError>("data.mix_by must be rows or tokens, got '{}'", mix_by);
  if (!(eval_fraction >= 0.0 && eval_fraction < 1.0)) {
    fail<ConfigError>("data.eval_fraction must be at least 0 and below 1, got {}", eval_fraction);
  }
  if (eval_fraction > 0.0 && !eval.empty()) {
    fail<ConfigError>("data: set eval or eval_fraction, got both");
  }
  require_sequence_length(sequence_length);
  if (shuffle_block < 0)
    fail<ConfigError>("data.shuffle_block must not be negative, got {}", shuffle_block);
  if (shuffle_block > 0 && !shuffle)
    throw ConfigError(
        "data.shuffle_block is the size of what data.shuffle mixes, and that is false; leave one "
        "of the two out");
  if (shuffle_block > 0 && train.front().weight > 0)
    throw ConfigError(
        "data.shuffle_block keeps to the order of the files, and data.train[].weight mixes these; "
        "leave one of the two out");
  if (cache != "auto" && cache != "true" && cache != "false")
    fail<ConfigError>("data.cache must be auto, true or false, got '{}'", cache);
  if (prompt_style != "chat_template" && prompt_style != "alpaca") {
    fail<ConfigError>("data.prompt_style must be chat_template or alpaca, got '{}'", prompt_style);
  }
}

}  // namespace qlora::data
