#include "base/upload.h"

namespace qlora {

at::Tensor upload(const at::Tensor& host, at::Device device) {
  if (!device.is_cuda() || host.numel() == 0) return host.to(device);
  // The allocator of pinned memory gives it to nobody else before the copy is done.
  return host.pin_memory().to(device, /*non_blocking=*/true);
}

}  // namespace qlora
