#include "recipes/exports/calibration_rows.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "data/cache/cached_dataset.h"
#include "data/chat_renderer.h"
#include "data/packing.h"
#include "data/permutation.h"
#include "model/position_limit.h"
#include "recipes/models/model_tokens.h"

namespace qlora::recipes {
namespace {

// Longer rows are cut into pieces.
data::DataOptions data_options(const data::DatasetOptions& rows, int64_t sequence_length,
                               data::TrainOn train_on, const model::Architecture& architecture) {
  data::DataOptions data;
  data.train = {rows};
  data.sequence_length = std::min(sequence_length, model::position_limit(architecture).tokens);
  data.train_on = train_on;
  data.on_overlength = data::OnOverlength::kSplit;
  data.validate();
  return data;
}

data::Examples read_rows(const data::DataOptions& options, const data::Tokenizer& tokenizer,
                         const model::Architecture& architecture, const char* purpose) {
  const data::DatasetOptions& rows = options.train.front();
  const auto chat_template = data::choose_chat_template("", tokenizer);
  const data::LoadedDataset dataset = data::load_dataset(
      rows, 0, options, tokenizer, chat_template.get(), model_tokens(architecture));
  for (const std::string& note : dataset.notes) log::write_info(note);
  if (dataset.examples.empty()) fail<ConfigError>("{}: no row is left to {}", rows.path, purpose);
  return dataset.examples;
}

// As many of the examples, drawn from all of them, as have `tokens` tokens.
std::vector<data::Example> drawn(const data::Examples& examples, int64_t tokens) {
  std::vector<data::Example> chosen;
  const auto count = static_cast<int64_t>(examples.size());
  for (int64_t i = 0; i < count && tokens > 0; ++i) {
    const auto index = static_cast<size_t>(data::permuted_index(i, count, /*seed=*/0, /*epoch=*/0));
    chosen.push_back(examples[index].copy());
    tokens -= chosen.back().length();
    examples.drop_pages_of(index);
  }
  return chosen;
}

void append(const data::Example& example, model::ForwardInput& sequence) {
  if (sequence.cu_seqlens.empty()) sequence.cu_seqlens.push_back(0);
  for (size_t i = 0; i < example.tokens.size(); ++i) {
    sequence.tokens.push_back(example.tokens[i]);
    sequence.positions.push_back(static_cast<int32_t>(i));
  }
  sequence.cu_seqlens.push_back(static_cast<int32_t>(sequence.tokens.size()));
}

std::vector<std::vector<int64_t>> packed(const std::vector<data::Example>& examples,
                                         int64_t sequence_length) {
  std::vector<int64_t> lengths, order;
  for (const data::Example& example : examples) {
    order.push_back(static_cast<int64_t>(lengths.size()));
    lengths.push_back(example.length());
  }
  return data::pack_first_fit(lengths, order, sequence_length);
}

}  // namespace

void CalibrationOptions::validate() const {
  if (data.path.empty())
    throw ConfigError(
        "gptq rounds weights by what they do to rows like those that the model will see: give some "
        "hundred with --data FILE (--format says what they are; text, if it is left out)");
  if (samples < 1) fail<ConfigError>("--samples must be at least 1, found {}", samples);
  if (sequence_length < data::kShortestSequence)
    fail<ConfigError>("--sequence-length must be at least {}, found {}", data::kShortestSequence,
                      sequence_length);
  if (max_memory_bytes < 0)
    fail<ConfigError>("--max-memory must not be negative, found {}", max_memory_bytes);
}

std::vector<int64_t> CalibrationRows::lengths() const {
  std::vector<int64_t> lengths;
  for (const model::ForwardInput& sequence : sequences)
    lengths.push_back(static_cast<int64_t>(sequence.tokens.size()));
  return lengths;
}

CalibrationRows read_calibration_rows(const CalibrationOptions& options,
                                      const data::Tokenizer& tokenizer,
                                      const model::Architecture& architecture) {
  const data::DataOptions data =
      data_options(options.data, options.sequence_length, data::TrainOn::kAll, architecture);
  const std::vector<data::Example> examples =
      drawn(read_rows(data, tokenizer, architecture, "calibrate on"),
            options.samples * data.sequence_length);
  CalibrationRows rows;
  std::vector<data::Example> used;
  for (const std::vector<int64_t>& members : packed(examples, data.sequence_length)) {
    if (static_cast<int64_t>(rows.sequences.size()) == options.samples) break;
    rows.sequences.emplace_back();
    for (const int64_t member : members) {
      used.push_back(examples[static_cast<size_t>(member)]);
      append(used.back(), rows.sequences.back());
      rows.facts.tokens += used.back().length();
    }
  }
  rows.facts.name = std::filesystem::path(options.data.path).filename().string();
  rows.facts.hash = data::examples_fingerprint(used);
  rows.facts.sequences = static_cast<int64_t>(rows.sequences.size());
  log::info("calibration: {} tokens of {} in {} sequences", rows.facts.tokens, rows.facts.name,
            rows.facts.sequences);
  if (rows.facts.tokens < 4 * architecture.hidden_size)
    log::warning(
        "{} tokens are few to calibrate a model of width {} on; 262,144 are usual (128 sequences "
        "of 2,048), and with too few the weights fit these rows alone",
        rows.facts.tokens, architecture.hidden_size);
  return rows;
}

std::vector<data::Example> read_held_out_rows(const data::DatasetOptions& rows,
                                              int64_t sequence_length,
                                              const data::Tokenizer& tokenizer,
                                              const model::Architecture& architecture) {
  if (rows.format == data::kPreferenceFormat)
    throw ConfigError(
        "--held-out: pairs of answers (preference) are compared, not predicted; give rows of "
        "another format");
  const data::DataOptions options =
      data_options(rows, sequence_length, data::TrainOn::kAssistant, architecture);
  std::vector<data::Example> examples;
  for (const data::ExampleView& example :
       read_rows(options, tokenizer, architecture, "compare methods on"))
    examples.push_back(example.copy());
  return examples;
}

}  // namespace qlora::recipes
