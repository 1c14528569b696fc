// The files of a dataset. data.train[].path names one file; a folder, whose files of rows are taken
// in the order of their names; a pattern (train-*.parquet), likewise; or a folder that `datasets`
// wrote with save_to_disk, whose state.json lists its files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/example.h"

namespace qlora::data {

// At least one, in the order of their rows. ConfigError if the path leads to no file, to a folder
// without files of rows, or to one that holds several splits (train and test).
std::vector<std::string> shards_of(const DatasetOptions& dataset);

// Whether a file of this name is taken for rows in a folder: .jsonl, .csv, .parquet and others,
// with .gz or .zst behind it or not.
bool is_named_as_rows(const std::string& path);

// Whether two datasets' paths, each a file, folder or pattern, lead to a file that is the same.
bool share_a_file(const DatasetOptions& a, const DatasetOptions& b);

// Whether the path leads to files, all of which are there.
bool is_at_hand(const DatasetOptions& dataset);

// Bytes of the rows as text, estimated by the sizes of the files and the usual ratio of archives;
// 0 if the path leads to none.
int64_t estimated_text_bytes(const DatasetOptions& dataset);

}  // namespace qlora::data
