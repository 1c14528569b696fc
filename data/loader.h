// Deals the examples of a dataset into optimizer steps. The order is a keyed permutation (a pure
// function of seed and epoch) and the packing of an epoch a pure function of that order, so a
// position is just {epoch, step in epoch}: seeking replays nothing, and what a resumed run sees is
// what the unbroken one would have.
#pragma once

#include <cstdint>
#include <vector>

#include "data/examples.h"
#include "data/permutation.h"

namespace qlora::data {

// Rows laid end to end: no padding anywhere. Document d is tokens[cu_seqlens[d], cu_seqlens[d+1])
// and attends to itself.
struct MicroBatch {
  std::vector<TokenId> tokens;
  std::vector<TokenId> targets;     // targets[i]: the token that must follow tokens[i], or kIgnore
  std::vector<int32_t> positions;   // restart at 0 in each document
  std::vector<int32_t> cu_seqlens;  // size documents + 1, from 0 to tokens.size()
  std::vector<int64_t> examples;    // index into the dataset of each document
  int64_t num_pairs = 0;            // above 0: documents 2p and 2p + 1 are pair p (Side)
  // What an encoder reads, likewise: the source of document d, which sees no other. Empty for
  // models without one.
  std::vector<TokenId> encoded = {};
  std::vector<int32_t> encoded_cu_seqlens = {};

  // Of decoder and encoder.
  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size() + encoded.size()); }
  int64_t num_supervised() const;  // targets that are not kIgnore
};

// All micro-batches of one optimizer step and the divisors of its loss.
struct StepWindow {
  std::vector<MicroBatch> micro_batches;
  int64_t num_supervised = 0;
  int64_t num_tokens = 0;
  int64_t num_pairs = 0;
};

struct LoaderOptions {
  int64_t sequence_length = 1024;
  bool packing = true;  // first-fit rows into sequences of sequence_length; else one row a sequence
  bool shuffle = true;
  int64_t micro_batch_size = 1;  // sequences in a micro-batch
  int64_t gradient_accumulation_steps = 1;
  uint64_t seed = 0;
  // Examples, or pairs, of each source in an epoch (mixture.h), which then go on from epoch to
  // epoch: a source of ten that has four an epoch gives all of them before it gives one again.
  // Empty: every one once an epoch.
  std::vector<int64_t> examples_of_source = {};
  // With shuffle: so many examples, or pairs, that follow one another change places among
  // themselves alone, block after block. 0: all of them do.
  int64_t shuffle_block = 0;
};

// Where the loader stands. Part of TrainState.
struct LoaderPosition {
  int64_t epoch = 0;
  int64_t step_in_epoch = 0;
  bool operator==(const LoaderPosition&) const = default;
};

// The two examples of a pair stay together, in one sequence, which then has room for twice
// sequence_length tokens: each answer may have sequence_length with its prompt. Where rows are not
// packed, a pair is a sequence.
class Loader {
 public:
  // Error if there is no example, or one is empty, longer than sequence_length or without anything
  // supervised, or if there are pairs and other examples too; with examples_of_source also if the
  // examples are not in the order of their sources, or if there is a shuffle_block.
  Loader(Examples examples, LoaderOptions options);

  int64_t num_examples() const { return static_cast<int64_t>(examples_.size()); }
  // Steps of one epoch; the last may be short. With packing it can differ between epochs (other
  // order, other packing).
  int64_t steps_in_epoch(int64_t epoch) const;
  // Whether every epoch has as many steps as the first.
  bool has_equal_epochs() const { return !options_.packing; }

  // The examples of an epoch in the order in which they are dealt out before they are packed, those
  // of a pair one after the other.
  std::vector<int64_t> order_of(int64_t epoch) const;

  // The window at the position, and moves on (into the next epoch at its end).
  StepWindow next();
  LoaderPosition position() const { return position_; }
  // Error if the epoch has no such step. {e, steps_in_epoch(e)} is {e + 1, 0}.
  void seek(LoaderPosition position);

  // Share of tokens that are supervised, over the whole dataset.
  double supervised_share() const;
  // Share of sequence_length that the sequences of an epoch fill on average; 1 minus it is lost to
  // packing.
  double fill(int64_t epoch) const;

  const Examples& examples() const { return examples_; }

 private:
  const std::vector<std::vector<int64_t>>& sequences_of(int64_t epoch) const;
  // Rows are what is dealt together: examples, or pairs. Row r has the examples from
  // r * examples_a_row() on.
  int64_t examples_a_row() const { return has_pairs_ ? 2 : 1; }
  std::vector<int64_t> rows_of(int64_t epoch) const;
  int64_t shuffled(int64_t index, int64_t count, int64_t epoch) const;
  std::vector<int64_t> mixed_rows(int64_t epoch) const;

  Examples examples_;
  LoaderOptions options_;
  LoaderPosition position_;
  bool has_pairs_ = false;
  std::vector<int64_t>
      begins_of_sources_;  // with examples_of_source: its first example, and an end
  mutable int64_t planned_epoch_ = -1;
  mutable std::vector<std::vector<int64_t>>
      sequences_;  // example indices of each sequence of planned_epoch_
};

// Lays examples end to end with restarting positions and shifted targets.
MicroBatch make_micro_batch(const Examples& examples, const std::vector<int64_t>& indices);

}  // namespace qlora::data
