// Chooses between an op's two kernels: QLORA_DISPATCH(device, cpu::f(args), cuda::f(args)). In a
// CPU build the second call is never compiled, so its kernel need not exist.
#pragma once

#include <c10/core/Device.h>

#include "base/error.h"

namespace qlora {
[[noreturn]] inline void fail_without_cuda() {
  throw Error(
      "a tensor on a GPU reached a program built without CUDA; rebuild with -DQLORA_CUDA=ON");
}
}  // namespace qlora

#ifdef QLORA_CUDA
#define QLORA_DISPATCH(device, cpu_call, cuda_call) \
  do {                                              \
    if ((device).is_cuda()) {                       \
      cuda_call;                                    \
    } else {                                        \
      cpu_call;                                     \
    }                                               \
  } while (false)
#else
#define QLORA_DISPATCH(device, cpu_call, cuda_call)       \
  do {                                                    \
    if ((device).is_cuda()) ::qlora::fail_without_cuda(); \
    cpu_call;                                             \
  } while (false)
#endif
