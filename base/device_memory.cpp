#include "base/device_memory.h"

#include "base/arena_allocator.h"
#include "base/device.h"
#ifdef QLORA_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#endif

namespace qlora {

int64_t taken_memory_bytes([[maybe_unused]] c10::Device device) {
#ifdef QLORA_CUDA
  if (device.is_cuda()) {
    const c10::cuda::CUDAGuard guard(device);
    size_t free = 0, total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    return static_cast<int64_t>(total - free);
  }
#endif
  return peak_resident_bytes();
}

TensorMemory peak_tensor_memory([[maybe_unused]] c10::Device device) {
#ifdef QLORA_CUDA
  if (device.is_cuda()) {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
    constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    return {stats.allocated_bytes[kAll].peak, stats.reserved_bytes[kAll].peak};
  }
#endif
  return {arena_statistics().peak_used_bytes, arena_statistics().extent_bytes};
}

}  // namespace qlora
