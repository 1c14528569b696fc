// Masters in bfloat16 (lora.dtype): the optimizer updates them in fp32, and after each step one
// pass rounds them to what bfloat16 can hold. They stay in the flat fp32 buffer; their memory is
// that of fp32, what is saved is half of it, and a run that is resumed from the saved bfloat16
// tensors goes on from the very same numbers.
//
// To nearest, an update smaller than 2^-9 of a weight is lost, however often it comes. Stochastic
// rounding (optim.stochastic_rounding) takes the upper neighbour with the probability of the lower
// bits,
//
//   round(x) = truncate(bits(x) + r),   r uniform in [0, 2^16)
//
// so that its mean is x and small updates add up (Gupta et al. 2015). r is a function of the seed,
// the tensor's name, the step and the place (base/philox.h): the same bits on every device and
// after a resume.
#pragma once

#include <cstdint>
#include <vector>

#include "optim/optimizer.h"

namespace qlora::optim {

struct MasterRounding {
  bool to_bfloat16 = false;  // false: masters are fp32 and stay as the optimizer left them
  bool stochastic = false;
  uint64_t seed = 0;
};

// Rounds every parameter's values in place; `step` counts the optimizer steps of the run. Infinite
// and NaN values stay what they are.
void round_masters(const MasterRounding& rounding, const std::vector<Parameter>& parameters,
                   int64_t step);

}  // namespace qlora::optim
