// AdamW of one tensor on the CPU as plain loops: the definition that optim/update_kernels.h is held
// against, bit for bit.
#pragma once

#include <cstdint>
#include <vector>

#include "optim/optimizer_options.h"

namespace qlora::test {

struct AdamwReference {
  AdamwReference(const optim::OptimizerOptions& options, std::vector<float> initial,
                 bool eight_bit);
  void step(double lr, double gradient_scale, const std::vector<float>& gradient);

  optim::OptimizerOptions options;
  bool eight_bit;
  int64_t num_steps = 0;
  std::vector<float> value;
  std::vector<float> m, v;              // fp32 state
  std::vector<uint8_t> codes1, codes2;  // 8-bit state
  std::vector<float> absmax1, absmax2;

 private:
  void step_32bit(double lr, float scale, const std::vector<float>& gradient);
  void step_8bit(double lr, float scale, const std::vector<float>& gradient);
};

}  // namespace qlora::test
