// What the ranks of a run tell each other by the store where they meet: that they have come, and
// why one of them goes, since the others would else see no more than closed connections.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "distributed/engine.h"

namespace qlora::distributed {

// Counts this rank among those that have come. c10d's errors, as of num_come().
void come(const Store& store);
int64_t num_come(const Store& store);

struct Departure {
  std::string why;
  bool stopped = false;  // it was told to stop; else it failed
};

// The store may be gone when a rank goes: none of the following throws, nor waits for long.

// Of several ranks that go the first one's reason stays.
void leave_departure(const Store& store, const Departure& departure) noexcept;
// Nothing if no rank has gone, or the store is gone.
std::optional<Departure> read_departure(const Store& store) noexcept;
// Returns when all ranks that have come have left or read a reason, or after some seconds. For who
// serves the store.
void wait_for_readers(const Store& store) noexcept;

}  // namespace qlora::distributed
