// Rows that repeat an earlier one, token for token and mask for mask as they are trained
// (data.deduplicate). A pair repeats another if both answers do.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_set>

#include "data/examples.h"

namespace qlora::data {

class SeenRows {
 public:
  // Takes the examples of rows that came before, in this call or an earlier one, out of `examples`,
  // in which the examples of a row are neighbours. Returns the number of these rows.
  int64_t take_out_repeated(Examples& examples);

 private:
  std::unordered_set<std::string> fingerprints_;
};

}  // namespace qlora::data
