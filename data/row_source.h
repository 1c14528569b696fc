// The rows of a dataset file in order, a chunk at a time: JSON Lines, one JSON array, or (format:
// text) a .txt file, which is one row.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/example.h"
#include "nlohmann/json.hpp"

namespace qlora::data {

using Json = nlohmann::ordered_json;

struct SourceRow {
  Json value;
  int64_t index = 0;  // from 0
  int64_t line = 0;   // from 1
};

class RowSource {
 public:
  // IoError if the file cannot be read, FormatError if it is no file of rows.
  explicit RowSource(const DatasetOptions& dataset);
  ~RowSource();

  // Up to `count` further rows; none at the end. FormatError with file and line if a row is not
  // JSON.
  std::vector<SourceRow> next(int64_t count);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Whether two paths lead to one file.
bool is_same_file(const std::string& a, const std::string& b);

// "train.jsonl:12": how messages point at a row.
std::string row_location(const std::string& path, const SourceRow& row);

}  // namespace qlora::data
