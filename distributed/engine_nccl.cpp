#include "base/error.h"
#include "distributed/engine.h"

#ifdef QLORA_CUDA
#define USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <cstdlib>
#endif

namespace qlora::distributed {

#ifdef QLORA_CUDA
Engine nccl_engine(const Store& store, const Place& place, std::chrono::milliseconds patience) {
  // Else a watchdog thread ends the process where a wait would throw; torchrun sets 1.
  setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", 1);
  const auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = patience;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(
      c10::make_intrusive<c10d::PrefixStore>("nccl", store), place.rank, place.size, options);
}
#else
Engine nccl_engine(const Store&, const Place&, std::chrono::milliseconds) {
  fail<Error>("nccl_engine: the program was built without CUDA");
}
#endif

}  // namespace qlora::distributed
