// All datasets of a recipe, ready for the loader: read, tokenized, held to sequence_length, split
// into training and evaluation, counted and audited. Tokenized rows come from the cache where it
// has them, and lie there where they are many (cache/cached_dataset.h); the examples are the same.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/chat_template.h"
#include "data/dataset_report.h"
#include "data/embedded_tokens.h"
#include "data/examples.h"
#include "data/needed_rows.h"

namespace qlora::data {

struct PreparedData {
  Examples train, eval;
  std::vector<DatasetReport> train_reports,
      eval_reports;  // one a dataset; the split by eval_fraction comes after
  std::vector<std::string> warnings;
  std::vector<std::string> cache_notes;  // what was taken from the cache of tokenized rows, or made

  // Whether there may be training rows that were not read, since they are not needed.
  bool ends_early() const;
  // Of the training examples: decides, with seed and options, everything the loader deals out.
  std::string fingerprint() const { return examples_fingerprint(train); }
};

// `chat_template` may be null (choose_chat_template found none) if no dataset needs one. What is
// wrong with several datasets is told together, a line each. With
// eval_fraction, whole rows are set aside by a keyed permutation of the seed, so that no piece of
// an evaluated row is trained; ConfigError if that leaves either side empty. ConfigError if the
// audit fails (audit_dataset), FormatError for a token that `model` has no embedding for. Training
// rows are read as far as they are `needed`, which is allowed where deals_first_rows_first(); null:
// all of them.
PreparedData prepare_datasets(const DataOptions& options, const Tokenizer& tokenizer,
                              const ChatTemplate* chat_template, uint64_t seed,
                              const ModelTokens& model = {}, const NeededRows* needed = nullptr);

// A sentence that says so if a file of `evaluated` is one of those that `options` trains on; empty
// if not.
std::string trained_on_sentence(const DatasetOptions& evaluated, const DataOptions& options);

}  // namespace qlora::data
