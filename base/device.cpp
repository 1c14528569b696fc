#include "base/device.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <omp.h>

#include <atomic>
#include <cctype>
#include <cstdlib>

#include "base/cgroup.h"
#include "base/error.h"
#include "base/proc_file.h"
#ifdef QLORA_CUDA
#include <c10/core/AllocatorConfig.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace qlora {
namespace {

std::atomic<int> pretended_capability{0};  // 0: none

}  // namespace

bool cuda_compiled() {
#ifdef QLORA_CUDA
  return true;
#else
  return false;
#endif
}

int num_gpus() {
#ifdef QLORA_CUDA
  return c10::cuda::device_count();
#else
  return 0;
#endif
}

bool cuda_available() { return num_gpus() > 0; }

int gpu_capability() {
  if (const int pretended = pretended_capability) return pretended;
#ifdef QLORA_CUDA
  if (cuda_available()) {
    const auto device = c10::cuda::current_device();
    int major = 0, minor = 0;
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    return 10 * major + minor;
  }
#endif
  constexpr int kHopper = 90;
  return kHopper;
}

AtCapability::AtCapability(int capability) { pretended_capability = capability; }
AtCapability::~AtCapability() { pretended_capability = 0; }

c10::Device device_from_string(const std::string& name) {
  if (name == "auto") return device_from_string(cuda_available() ? "cuda:0" : "cpu");
  if (name == "cpu") return c10::Device("cpu");
  const bool indexed = name.size() > 5 && name.rfind("cuda:", 0) == 0 &&
                       name.find_first_not_of("0123456789", 5) == std::string::npos;
  if (name != "cuda" && !indexed)
    fail<ConfigError>("device must be auto, cpu, cuda or cuda:N, got '{}'", name);
  if (!cuda_compiled())
    fail<ConfigError>(
        "device '{}' was asked for, but this program was built without CUDA; "
        "make cuda builds one with it, or use device: cpu",
        name);
  if (!cuda_available())
    fail<ConfigError>(
        "device '{}' was asked for, but no usable GPU was found; run `qlora doctor`, "
        "or use device: cpu",
        name);
  c10::Device device(name == "cuda" ? "cuda:0" : name);
#ifdef QLORA_CUDA
  if (device.index() >= num_gpus())
    fail<ConfigError>("device '{}' was asked for, but there are {} GPUs", name, num_gpus());
  c10::cuda::set_device(device.index());
#endif
  return device;
}

void grow_gpu_segments() {
#ifdef QLORA_CUDA
  if (!cuda_available()) return;
  if (std::getenv("PYTORCH_ALLOC_CONF") || std::getenv("PYTORCH_CUDA_ALLOC_CONF")) return;
  static const bool once =
      (c10::CachingAllocator::setAllocatorSettings("expandable_segments:True"), true);
  (void)once;
#endif
}

void* current_stream([[maybe_unused]] c10::Device device) {
#ifdef QLORA_CUDA
  if (device.is_cuda()) return c10::cuda::getCurrentCUDAStream(device.index()).stream();
#endif
  return nullptr;
}

void synchronize([[maybe_unused]] c10::Device device) {
#ifdef QLORA_CUDA
  if (device.is_cuda()) c10::cuda::device_synchronize();
#endif
}

void set_num_threads(int threads) {
  if (threads <= 0) threads = usable_cores();
  at::set_num_threads(threads);
  omp_set_num_threads(threads);
}

int64_t peak_resident_bytes() { return proc_bytes("/proc/self/status", "VmHWM:"); }
int64_t resident_bytes() { return proc_bytes("/proc/self/status", "VmRSS:"); }

int64_t free_memory_bytes(c10::Device device) {
#ifdef QLORA_CUDA
  if (device.is_cuda()) {
    const c10::cuda::CUDAGuard guard(device);
    size_t free = 0, total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    return static_cast<int64_t>(free);
  }
#endif
  check(device.is_cpu(), "there is no device {}", device.str());
  return usable_memory_bytes();
}

}  // namespace qlora
