// Why a rank failed, left in the store for the others, who else would see no more than that its
// connections are closed. The store may be gone itself: none of these throws, nor waits for long.
#pragma once

#include <string>

#include "distributed/engine.h"

namespace qlora::distributed {

// Of several ranks that fail the first one's reason stays.
void leave_failure(const Store& store, const std::string& why) noexcept;
// Empty if no rank has left one, or the store is gone.
std::string read_failure(const Store& store) noexcept;
// Returns when all `ranks` have left or read a reason, or after some seconds. For who serves the
// store.
void wait_for_readers(const Store& store, int ranks) noexcept;

}  // namespace qlora::distributed
