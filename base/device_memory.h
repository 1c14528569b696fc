// What a run has taken of the memory that its plan is about.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace qlora {

// CPU: the most that the process had resident. GPU: all that is taken on the device now, by its
// context and its allocator, which gives nothing back, and by other programs.
int64_t taken_memory_bytes(c10::Device device);

}  // namespace qlora
