// Scratch buffers that ops reuse instead of allocating: one growing allocation per (slot, dtype,
// device). A buffer is valid until the same slot is asked for again. One Workspace belongs to one
// model and one thread of calls.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <tuple>

namespace qlora::quant {

class Workspace {
 public:
  enum class Slot { kWeight, kGradient, kLoss };
  // Uninitialised [rows, columns] tensor of the given dtype and device.
  at::Tensor matrix(Slot slot, int64_t rows, int64_t columns, at::ScalarType dtype,
                    at::Device device);
  int64_t bytes() const;
  void clear() { buffers_.clear(); }

 private:
  std::map<std::tuple<Slot, at::ScalarType, int>, at::Tensor>
      buffers_;  // int: device index, -1 the CPU
};

}  // namespace qlora::quant
