// All rows of a dataset, or what it is refused with.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "data/row_source.h"

namespace qlora::test {

inline std::vector<data::SourceRow> read_rows(const data::DatasetOptions& dataset) {
  data::RowSource source(dataset);
  std::vector<data::SourceRow> all;
  for (;;) {
    std::vector<data::SourceRow> some = source.next(2);
    if (some.empty()) return all;
    for (data::SourceRow& row : some) all.push_back(std::move(row));
  }
}

// What E says of the dataset; "no error" if it is read.
template <typename E>
std::string refusal_of(const data::DatasetOptions& dataset) {
  try {
    read_rows(dataset);
  } catch (const E& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace qlora::test
