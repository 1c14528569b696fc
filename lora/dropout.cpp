#include "lora/dropout.h"

#include <ATen/ATen.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "lora/dropout_kernels.h"
#include "quant/element_tensor.h"

namespace qlora::lora {

at::Tensor dropout(const at::Tensor& x, double p, uint64_t key) {
  check(p >= 0.0 && p < 1.0, "dropout: probability must be in [0, 1), got {}", p);
  const at::Tensor input = x.contiguous();
  at::Tensor output = at::empty_like(input);
  const DropoutArguments arguments{
      input.const_data_ptr(), output.mutable_data_ptr(), quant::element_type(input, "dropout"),
      input.numel(),          static_cast<float>(p),     key};
  QLORA_DISPATCH(x.device(), cpu::dropout(arguments),
                 cuda::dropout(arguments, current_stream(x.device())));
  return output;
}

}  // namespace qlora::lora
