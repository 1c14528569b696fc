#include "data/loader.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/profile.h"
#include "base/seed.h"
#include "data/packing.h"

namespace qlora::data {
namespace {

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

void check_options(const LoaderOptions& options) {
  check(options.sequence_length >= 2, "loader: sequence_length must be at least 2, got {}",
        options.sequence_length);
  check(options.micro_batch_size >= 1, "loader: micro_batch_size must be at least 1, got {}",
        options.micro_batch_size);
  check(options.gradient_accumulation_steps >= 1,
        "loader: gradient_accumulation_steps must be at least 1, got {}",
        options.gradient_accumulation_steps);
  check(options.shuffle_block >= 0 &&
            (options.shuffle_block == 0 || options.examples_of_source.empty()),
        "loader: shuffle_block must not be negative, nor stand beside a mixture, got {}",
        options.shuffle_block);
  check(options.sequence_length <=
            std::numeric_limits<int32_t>::max() / (2 * options.micro_batch_size),
        "loader: a micro-batch must stay below 2^31 tokens, got {} sequences of {}",
        options.micro_batch_size, options.sequence_length);
}

void check_example(const ExampleView& example, int64_t index, int64_t sequence_length) {
  check(example.tokens.size() == example.supervised.size(),
        "loader: example {} must have one mask entry a token, got {} for {}", index,
        example.supervised.size(), example.tokens.size());
  check(example.length() <= sequence_length,
        "loader: example {} must have at most {} tokens (sequence_length), got {}", index,
        sequence_length, example.length());
  check(example.num_supervised() > 0,
        "loader: example {} must have a supervised token after its first, got none", index);
}

std::vector<int64_t> examples_of_pairs(const std::vector<int64_t>& pairs) {
  std::vector<int64_t> examples;
  for (const int64_t pair : pairs) {
    examples.push_back(2 * pair);
    examples.push_back(2 * pair + 1);
  }
  return examples;
}

// Whether the examples are pairs, chosen and rejected in turn.
bool are_pairs(const Examples& examples) {
  const bool pairs = examples.front().side != Side::kNone;
  int32_t source = 0;  // of the chosen answer
  for (size_t i = 0; i < examples.size(); ++i) {
    const ExampleView example = examples[i];
    const Side expected = !pairs ? Side::kNone : i % 2 == 0 ? Side::kChosen : Side::kRejected;
    const bool goes_on = expected != Side::kRejected || example.source == source;
    check(example.side == expected && goes_on, "loader: example {} breaks the order of pairs", i);
    source = example.source;
  }
  check(!pairs || examples.size() % 2 == 0, "loader: the last chosen answer has no rejected one");
  return pairs;
}

void check_sources(const Examples& examples, const std::vector<int64_t>& counts) {
  check(std::ranges::is_sorted(examples, {}, &ExampleView::source),
        "loader: with a mixture the examples must stand in the order of their sources");
  check(
      examples.front().source >= 0 && examples.back().source < static_cast<int64_t>(counts.size()),
      "loader: a mixture must have a count for each source, got {} for source {}", counts.size(),
      examples.back().source);
  check(std::ranges::all_of(counts, [](int64_t count) { return count >= 0; }) &&
            std::accumulate(counts.begin(), counts.end(), int64_t{0}) > 0,
        "loader: the counts of a mixture must not be negative, nor all of them 0");
}

// The first example of each of so many sources, in whose order they stand, and the number of all.
std::vector<int64_t> begins_of_sources(const Examples& examples, size_t num_sources) {
  std::vector<int64_t> begins(num_sources + 1, 0);
  for (const ExampleView& example : examples) ++begins[static_cast<size_t>(example.source) + 1];
  std::partial_sum(begins.begin(), begins.end(), begins.begin());
  return begins;
}

}  // namespace

int64_t MicroBatch::num_supervised() const {
  return std::count_if(targets.begin(), targets.end(), [](TokenId t) { return t != kIgnore; });
}

MicroBatch make_micro_batch(const Examples& examples, const std::vector<int64_t>& indices) {
  MicroBatch batch;
  batch.examples = indices;
  batch.cu_seqlens.push_back(0);
  for (const int64_t index : indices) {
    const ExampleView example = examples.at(static_cast<size_t>(index));
    batch.num_pairs += example.side == Side::kChosen;
    const size_t all = example.tokens.size();
    // Nothing follows on the last token; decoders of an encoder's output are not given it, as in
    // transformers.
    const size_t length = example.encoded.empty() ? all : all - 1;
    batch.tokens.insert(batch.tokens.end(), example.tokens.begin(),
                        example.tokens.begin() + static_cast<ptrdiff_t>(length));
    for (size_t i = 0; i < length; ++i) {
      const bool trained = i + 1 < all && example.supervised[i + 1] != 0;
      batch.targets.push_back(trained ? example.tokens[i + 1] : kIgnore);
      batch.positions.push_back(static_cast<int32_t>(i));
    }
    batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
    if (!example.encoded.empty()) {
      if (batch.encoded.empty()) batch.encoded_cu_seqlens.push_back(0);
      batch.encoded.insert(batch.encoded.end(), example.encoded.begin(), example.encoded.end());
      batch.encoded_cu_seqlens.push_back(static_cast<int32_t>(batch.encoded.size()));
    }
    examples.drop_pages_of(static_cast<size_t>(index));
  }
  return batch;
}

Loader::Loader(Examples examples, LoaderOptions options)
    : examples_(std::move(examples)), options_(options) {
  check_options(options_);
  check(!examples_.empty(), "loader: a dataset must have at least one example, got none");
  for (int64_t i = 0; i < num_examples(); ++i) {
    check_example(examples_[static_cast<size_t>(i)], i, options_.sequence_length);
  }
  has_pairs_ = are_pairs(examples_);
  if (!options_.examples_of_source.empty()) {
    check_sources(examples_, options_.examples_of_source);
    begins_of_sources_ = begins_of_sources(examples_, options_.examples_of_source.size());
  }
  examples_.drop_pages();
}

// Each source is a stream of passes through its rows, every pass in another order; an epoch takes
// the next ones of each.
std::vector<int64_t> Loader::mixed_rows(int64_t epoch) const {
  std::vector<int64_t> mixed;
  for (size_t source = 0; source < options_.examples_of_source.size(); ++source) {
    const int64_t first = begins_of_sources_[source], last = begins_of_sources_[source + 1];
    const int64_t begin = first / examples_a_row();
    const int64_t count = (last - first) / examples_a_row();
    const int64_t wanted = count == 0 ? 0 : options_.examples_of_source[source];
    const uint64_t seed = random_key(random_key(options_.seed, "mixture"), uint64_t{source});
    for (int64_t i = epoch * wanted; i < (epoch + 1) * wanted; ++i)
      mixed.push_back(begin + (options_.shuffle ? permuted_index(i % count, count, seed, i / count)
                                                : i % count));
  }
  return mixed;
}

int64_t Loader::shuffled(int64_t index, int64_t count, int64_t epoch) const {
  if (options_.shuffle_block == 0) return permuted_index(index, count, options_.seed, epoch);
  return permuted_within_block(index, count, options_.shuffle_block, options_.seed, epoch);
}

std::vector<int64_t> Loader::rows_of(int64_t epoch) const {
  const bool mixes = !options_.examples_of_source.empty();
  const std::vector<int64_t> mixed = mixes ? mixed_rows(epoch) : std::vector<int64_t>{};
  const int64_t count =
      mixes ? static_cast<int64_t>(mixed.size()) : num_examples() / examples_a_row();
  std::vector<int64_t> rows(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = options_.shuffle ? shuffled(i, count, epoch) : i;
    rows[static_cast<size_t>(i)] = mixes ? mixed[static_cast<size_t>(at)] : at;
  }
  return rows;
}

std::vector<int64_t> Loader::order_of(int64_t epoch) const {
  const std::vector<int64_t> rows = rows_of(epoch);
  return has_pairs_ ? examples_of_pairs(rows) : rows;
}

const std::vector<std::vector<int64_t>>& Loader::sequences_of(int64_t epoch) const {
  if (planned_epoch_ == epoch) return sequences_;
  const int64_t together = examples_a_row();
  const std::vector<int64_t> rows = rows_of(epoch);
  if (options_.packing) {
    std::vector<int64_t> lengths(static_cast<size_t>(num_examples() / together), 0);
    for (size_t i = 0; i < examples_.size(); ++i)
      lengths[i / static_cast<size_t>(together)] += examples_[i].length();
    sequences_ = pack_first_fit(lengths, rows, together * options_.sequence_length);
  } else {
    sequences_.clear();
    sequences_.reserve(rows.size());
    for (const int64_t row : rows) sequences_.push_back({row});
  }
  if (has_pairs_)
    for (std::vector<int64_t>& sequence : sequences_) sequence = examples_of_pairs(sequence);
  examples_.drop_pages();
  planned_epoch_ = epoch;
  return sequences_;
}

int64_t Loader::steps_in_epoch(int64_t epoch) const {
  check(epoch >= 0, "loader: an epoch must not be negative, got {}", epoch);
  return ceil_divide(static_cast<int64_t>(sequences_of(epoch).size()),
                     options_.micro_batch_size * options_.gradient_accumulation_steps);
}

StepWindow Loader::next() {
  const ProfileScope scope("data");
  const int64_t steps = steps_in_epoch(position_.epoch);
  const auto& sequences = sequences_of(position_.epoch);
  const int64_t count = static_cast<int64_t>(sequences.size());
  const int64_t per_step = options_.micro_batch_size * options_.gradient_accumulation_steps;
  const int64_t begin = position_.step_in_epoch * per_step;
  const int64_t end = std::min(count, begin + per_step);
  StepWindow window;
  for (int64_t first = begin; first < end; first += options_.micro_batch_size) {
    const int64_t last = std::min(end, first + options_.micro_batch_size);
    std::vector<int64_t> indices;
    for (int64_t s = first; s < last; ++s) {
      const auto& sequence = sequences[static_cast<size_t>(s)];
      indices.insert(indices.end(), sequence.begin(), sequence.end());
    }
    window.micro_batches.push_back(make_micro_batch(examples_, indices));
    window.num_supervised += window.micro_batches.back().num_supervised();
    window.num_tokens += window.micro_batches.back().num_tokens();
    window.num_pairs += window.micro_batches.back().num_pairs;
  }
  if (++position_.step_in_epoch == steps) position_ = {position_.epoch + 1, 0};
  return window;
}

void Loader::seek(LoaderPosition position) {
  const int64_t steps = steps_in_epoch(position.epoch);
  check(
      position.step_in_epoch >= 0 && position.step_in_epoch <= steps,
      "loader: epoch {} has {} steps, cannot seek to step {}: are data, seed, sequence_length and "
      "batch sizes those of the run?",
      position.epoch, steps, position.step_in_epoch);
  if (position.step_in_epoch == steps) position = {position.epoch + 1, 0};
  position_ = position;
}

double Loader::supervised_share() const {
  int64_t supervised = 0, tokens = 0;
  for (const ExampleView& example : examples_) {
    supervised += example.num_supervised();
    tokens += example.length();
  }
  return static_cast<double>(supervised) / static_cast<double>(tokens);
}

double Loader::fill(int64_t epoch) const {
  int64_t tokens = 0;
  for (const std::vector<int64_t>& sequence : sequences_of(epoch))
    for (const int64_t index : sequence) tokens += examples_[static_cast<size_t>(index)].length();
  const double room = static_cast<double>(sequences_of(epoch).size()) *
                      static_cast<double>(examples_a_row() * options_.sequence_length);
  return static_cast<double>(tokens) / room;
}

}  // namespace qlora::data
