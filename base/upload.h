// Small tensors that are made on the host, on the device that computes with them.
#pragma once

#include <ATen/core/Tensor.h>

namespace qlora {

// `host`'s values on the device; `host` itself where that is the CPU. A GPU takes them in its turn
// while the host goes on: a plain copy would wait for all that is queued there.
at::Tensor upload(const at::Tensor& host, at::Device device);

}  // namespace qlora
