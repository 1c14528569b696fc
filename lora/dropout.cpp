#include "lora/dropout.h"

#include <ATen/ATen.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/seed.h"
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

bool drops(const Adapter& adapter, const ForwardContext& context) {
  return context.training && adapter.dropout > 0.0;
}

uint64_t mask_key(const Adapter& adapter, const ForwardContext& context) {
  return random_key(adapter.dropout_key, context.dropout_key);
}

at::Tensor dropped(const at::Tensor& x, const Adapter& adapter, const ForwardContext& context) {
  return dropout(x, adapter.dropout, mask_key(adapter, context));
}

}  // namespace qlora::lora
