#include "lora/dropout.h"

#include <ATen/ATen.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/seed.h"
#include "lora/dropout_kernels.h"
#include "quant/elements/element_tensor.h"

namespace qlora::lora {

namespace {

at::Tensor dropped_with(const at::Tensor& x, double p, uint64_t key, const DroppedTensor& second) {
  check(p >= 0.0 && p < 1.0, "dropout: probability must be in [0, 1), got {}", p);
  const at::Tensor input = x.contiguous();
  at::Tensor output = at::empty_like(input);
  const DropoutArguments arguments{{input.const_data_ptr(), output.mutable_data_ptr(), false},
                                   second,
                                   quant::element_type(input, "dropout"),
                                   input.numel(),
                                   static_cast<float>(p),
                                   key};
  QLORA_DISPATCH(x.device(), cpu::dropout(arguments),
                 cuda::dropout(arguments, current_stream(x.device())));
  return output;
}

}  // namespace

at::Tensor dropout(const at::Tensor& x, double p, uint64_t key) {
  return dropped_with(x, p, key, {nullptr, nullptr, false});
}

at::Tensor dropout(const at::Tensor& x, double p, uint64_t key, const at::Tensor& z,
                   const at::Tensor& sum) {
  for (const at::Tensor& t : {z, sum})
    check(t.is_contiguous() && t.sizes() == x.sizes() && t.scalar_type() == x.scalar_type(),
          "dropout: what is dropped together must be of one type and shape");
  return dropped_with(x, p, key, {z.const_data_ptr(), sum.mutable_data_ptr(), true});
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
