// Rows that repeat an earlier one, token for token and mask for mask as they are trained
// (data.deduplicate). A pair repeats another if both answers do.
#pragma once

#include <cstddef>
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
  struct Fingerprint {
    uint64_t high = 0, low = 0;
    bool operator==(const Fingerprint&) const = default;
  };
  struct Hash {
    size_t operator()(const Fingerprint& fingerprint) const { return fingerprint.low; }
  };
  static Fingerprint fingerprint_of(const std::string& hex);

  std::unordered_set<Fingerprint, Hash> fingerprints_;
};

}  // namespace qlora::data
