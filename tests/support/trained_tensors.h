// Parameters for optimizer tests: values and gradients as views of flat buffers, as the trainer
// keeps them.
#pragma once

#include <ATen/ATen.h>

#include <cstring>
#include <string>
#include <vector>

#include "optim/optimizer.h"
#include "tests/support/hashed_numbers.h"

namespace qlora::test {

struct TrainedTensors {
  explicit TrainedTensors(const std::vector<int64_t>& sizes, at::Device device = at::kCPU) {
    int64_t total = 0;
    for (const int64_t size : sizes) total += size;
    values = to_tensor(hashed_numbers(total, 0)).to(device);
    gradients = at::zeros_like(values);
    int64_t offset = 0;
    for (const int64_t size : sizes) {
      parameters.push_back({.name = "tensor" + std::to_string(parameters.size()),
                            .value = values.narrow(0, offset, size),
                            .gradient = gradients.narrow(0, offset, size)});
      offset += size;
    }
  }

  static at::Tensor to_tensor(const std::vector<float>& numbers) {
    return at::from_blob(const_cast<float*>(numbers.data()), {static_cast<int64_t>(numbers.size())})
        .clone();
  }
  // The gradients of one step; the stream is the step's number.
  void draw_gradients(uint32_t stream) {
    gradients.copy_(to_tensor(hashed_numbers(gradients.numel(), stream)));
  }

  at::Tensor values, gradients;
  std::vector<optim::Parameter> parameters;
};

// Same dtype, shape and bytes: unlike at::equal, tells -0 from 0 and takes a NaN as equal to
// itself.
inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const at::Tensor x = a.cpu().contiguous(), y = b.cpu().contiguous();
  return std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

inline bool same_bits(const optim::NamedTensors& a, const optim::NamedTensors& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i].first != b[i].first || !same_bits(a[i].second, b[i].second)) return false;
  return true;
}

}  // namespace qlora::test
