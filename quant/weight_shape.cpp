#include "quant/weight_shape.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"

namespace qlora::quant {

WeightShape WeightShape::of(const std::vector<int64_t>& sizes, const char* op) {
  const bool positive = std::ranges::all_of(sizes, [](int64_t size) { return size > 0; });
  check(positive && (sizes.size() == 2 || sizes.size() == 3),
        "{}: a weight must be [out, in] or [experts, out, in], found [{}]", op,
        fmt::join(sizes, ", "));
  if (sizes.size() == 2) return matrix(sizes[0], sizes[1]);
  return {sizes[0], sizes[1], sizes[2], true};
}

std::vector<int64_t> WeightShape::sizes() const {
  if (stacked) return {experts, out, in};
  return {out, in};
}

int64_t WeightShape::first_row(int64_t expert, int64_t begin, int64_t end, const char* op) const {
  check(0 <= expert && expert < experts, "{}: there is no expert {} among {}", op, expert, experts);
  check(0 <= begin && begin <= end && end <= out, "{}: rows [{}, {}) must lie in [0, {})", op,
        begin, end, out);
  return expert * out + begin;
}

}  // namespace qlora::quant
