#include "optim/round.h"

#include <ATen/ATen.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/seed.h"
#include "optim/round_kernels.h"

namespace qlora::optim {

void round_masters(const MasterRounding& rounding, const std::vector<Parameter>& parameters,
                   int64_t step) {
  if (!rounding.to_bfloat16) return;
  for (const Parameter& parameter : parameters) {
    const at::Tensor& value = parameter.value;
    check(value.scalar_type() == at::kFloat && value.is_contiguous(),
          "round_masters: {} must be contiguous fp32", parameter.name);
    const uint64_t key = random_key(random_key(rounding.seed, parameter.name + ".rounding"),
                                    static_cast<uint64_t>(step));
    const RoundArguments arguments{value.data_ptr<float>(), value.numel(), rounding.stochastic,
                                   key};
    QLORA_DISPATCH(value.device(), cpu::round_to_bfloat16(arguments),
                   cuda::round_to_bfloat16(arguments, current_stream(value.device())));
  }
}

}  // namespace qlora::optim
