#include "quant/workspace.h"

#include <ATen/ATen.h>

namespace qlora::quant {

at::Tensor Workspace::matrix(Slot slot, int64_t rows, int64_t columns, at::ScalarType dtype,
                             at::Device device) {
  const int index = device.is_cpu() ? -1 : device.index();
  at::Tensor& buffer = buffers_[{slot, dtype, index}];
  if (!buffer.defined() || buffer.numel() < rows * columns) {
    buffer = at::Tensor();  // free the old one first: both together would double the peak
    buffer = at::empty({rows * columns}, at::TensorOptions().dtype(dtype).device(device));
  }
  return buffer.narrow(0, 0, rows * columns).view({rows, columns});
}

int64_t Workspace::bytes() const {
  int64_t total = 0;
  for (const auto& [key, buffer] : buffers_) total += static_cast<int64_t>(buffer.nbytes());
  return total;
}

}  // namespace qlora::quant
