// What a run has taken of the memory that its plan is about.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace qlora {

// CPU: the most that the process had resident. GPU: all that is taken on the device now, by its
// context and its allocator, which gives nothing back, and by other programs.
int64_t taken_memory_bytes(c10::Device device);

// The most that tensors took at once, and the most that the allocator held for them. On a CPU 0
// without the arena.
struct TensorMemory {
  int64_t used = 0, held = 0;
};
TensorMemory peak_tensor_memory(c10::Device device);

}  // namespace qlora
