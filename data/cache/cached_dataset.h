// A dataset's examples, tokenized once: where the rows are many they go to a file on disk as they
// are tokenized, and the next run that needs the same ones maps that file (example_file.h).
//
//   DIRECTORY/<hash of the key>/examples
//
// An entry is there as a whole or not at all. Runs that make the same one at the same time each
// make their own, and the last to end puts its own in place; those that read the other keep it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/chat_template.h"
#include "data/dataset_report.h"
#include "data/embedded_tokens.h"
#include "data/examples.h"
#include "data/needed_rows.h"
#include "data/tokenizer.h"

namespace qlora::data {

struct LoadedDataset {
  Examples examples;
  DatasetReport report;
  // A sentence each: what was taken from the cache, or made; that the files changed meanwhile.
  std::vector<std::string> notes;
};

// Rows of fewer bytes than these are kept in memory by data.cache: auto.
constexpr int64_t kLargeDataset = int64_t{64} << 20;

// data.cache_dir, or what stands for it: qlora/tokenized in XDG_CACHE_HOME or in ~/.cache. Empty if
// neither is known, or a path in full (io/user_path.h).
std::string cache_directory(const DataOptions& options);

// Whether the tokenized rows of a dataset lie on disk, by data.cache and the size of its files.
bool lies_on_disk(const DatasetOptions& dataset, const DataOptions& options);
// Whether any of the datasets does, of those for training if the `needed` rows are not few enough
// to be read into memory: then preparing them looks into the cache, and makes what it lacks.
bool looks_on_disk(const DataOptions& options, const NeededRows* needed = nullptr);

// The examples and the report of read_dataset(), with its errors. An entry of the cache that is
// damaged, or of another version, is made anew. Where the disk refuses, data.cache: auto keeps the
// rows in memory; true is an IoError. Rows with today's date in them are not kept on disk. Where
// rows are `needed`, it is read as far as these go (needed_rows.h), and the report says if more may
// stand behind them.
LoadedDataset load_dataset(const DatasetOptions& dataset, int32_t source,
                           const DataOptions& options, const Tokenizer& tokenizer,
                           const ChatTemplate* chat_template, const ModelTokens& model = {},
                           const NeededRows* needed = nullptr);

// The report of a dataset whose examples the cache has. Nothing if it has none, or rows in memory
// are asked for.
std::optional<DatasetReport> cached_report(const DatasetOptions& dataset,
                                           const DataOptions& options, const Tokenizer& tokenizer,
                                           const ChatTemplate* chat_template,
                                           const ModelTokens& model = {});

}  // namespace qlora::data
