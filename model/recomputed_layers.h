// Which decoder layers keep only their input and are passed forward again for their backward pass:
// the first so many. The backward pass comes to them last, when what the other layers kept is
// freed, so that what a recomputed layer needs at once takes the place of that.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>

namespace qlora::model {

class RecomputedLayers {
 public:
  constexpr RecomputedLayers() = default;  // none
  // All or none.
  template <std::same_as<bool> Bool>
  constexpr RecomputedLayers(Bool all) : first_(all ? kAll : 0) {}
  // The first `count`, 0 or more.
  static constexpr RecomputedLayers first(int64_t count) {
    RecomputedLayers layers;
    layers.first_ = count;
    return layers;
  }

  bool any() const { return first_ > 0; }
  bool all() const { return first_ == kAll; }
  bool contains(int64_t layer) const { return layer < first_; }
  // How many of a model with so many layers.
  int64_t count(int64_t num_layers) const { return std::min(first_, num_layers); }
  bool operator==(const RecomputedLayers&) const = default;

 private:
  static constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
  int64_t first_ = 0;
};

}  // namespace qlora::model
