// Devices, the thread count and memory figures. The only folder that knows whether CUDA was
// compiled in.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

namespace qlora {

// True if the program was built with CUDA kernels.
bool cuda_compiled();
// True if, besides, a usable GPU is present.
bool cuda_available();

// Usable GPUs; 0 without CUDA.
int num_gpus();

// The compute capability of the current GPU, ten times the major number and the minor one: 75, 90.
// 90 where there is none: what is planned for a GPU is planned for a new one.
int gpu_capability();
// 16-bit numbers of bfloat16's range, and ATen's FlashAttention, come with Ampere.
inline bool gpu_has_bfloat16() { return gpu_capability() >= 80; }
// While it lives, gpu_capability() is this one, for tests of what goes by it.
class AtCapability {
 public:
  explicit AtCapability(int capability);
  ~AtCapability();
  AtCapability(const AtCapability&) = delete;
  AtCapability& operator=(const AtCapability&) = delete;
};

// "auto" -> the GPU if one is usable, else the CPU; "cpu"; "cuda" or "cuda:N". A GPU that is asked
// for and missing is a ConfigError that says why (not compiled in, or no device). A GPU becomes the
// current device of this thread.
c10::Device device_from_string(const std::string& name);

// From now on, torch's allocator of GPU memory takes segments that grow: where the sizes of buffers
// alternate, as with recomputation, it else holds a sixth more than tensors take. What the user has
// set for it (PYTORCH_ALLOC_CONF) stands. For the whole process; without effect without CUDA.
void grow_gpu_segments();

// The CUDA stream torch uses on the current device, as the kernels take it; nullptr on the CPU.
void* current_stream(c10::Device device);
void synchronize(c10::Device device);

// Sets torch's pool and OpenMP to the same number of threads. 0: one for each core that this
// process may use (base/cgroup.h).
void set_num_threads(int threads);

// Peak resident size of the process (VmHWM) and the current one, in bytes.
int64_t peak_resident_bytes();
int64_t resident_bytes();

// Memory that is still to be had on the device, in bytes (CPU: base/cgroup.h).
int64_t free_memory_bytes(c10::Device device);

}  // namespace qlora
