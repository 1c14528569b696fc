// Memory for tensors on the CPU. A training step asks for the same large buffers again and again;
// the C library returns each to the system and pays for fresh zeroed pages the next time, and what
// it keeps falls to pieces over the steps. Here large buffers are cut from one reserved range of
// addresses, best fit first, neighbours joined when they are freed: pages stay, in the kernel's
// large pages where it has them, and the range in use ends where the largest step's did.
//
// Buffers below kSmallBuffer go to the C library.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qlora {

// Buffers from this size on, in bytes, come from the range.
constexpr size_t kSmallBuffer = 64 << 10;

// From now on, torch's CPU tensors are allocated so. Without effect if the system will not reserve
// the range (a limit on virtual memory), and on later calls.
void use_arena_for_cpu_tensors();

struct ArenaStatistics {
  int64_t used_bytes = 0;  // in live buffers
  int64_t peak_used_bytes = 0;
  int64_t extent_bytes = 0;  // from the range's begin to the highest buffer there has been
};
ArenaStatistics arena_statistics();

// Gives the pages of free buffers back to the system: after loading a model, say.
void release_free_arena_pages();

}  // namespace qlora
