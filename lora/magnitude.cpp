#include "lora/magnitude.h"

#include <ATen/ATen.h>

#include "lora/dropout.h"
#include "lora/low_rank.h"

namespace qlora::lora {
namespace {

// z + scale h Bᵀ.
at::Tensor with_adapter(const at::Tensor& z, const at::Tensor& h, const Adapter& adapter,
                        double scale) {
  at::Tensor sum = z.clone(at::MemoryFormat::Contiguous);
  low_rank_up(h, adapter.b_compute, scale, true, sum);
  return sum;
}

// The frozen product of the dropped input where there is dropout, else `base`, that of x, with the
// adapter's product added.
at::Tensor scaled_part(const LoraLinear& layer, const at::Tensor& x, const at::Tensor& base,
                       const at::Tensor& h, const ForwardContext& context) {
  const Adapter& adapter = *layer.adapter;
  at::Tensor z = base;
  if (drops(adapter, context))
    z = layer.base->forward(dropped(x, adapter, context), *context.workspace);
  return with_adapter(z, h, adapter, adapter.scaling);
}

at::Tensor times_factor(const at::Tensor& rows, const Adapter& adapter) {
  return (rows * adapter.factor).to(rows.scalar_type());
}

}  // namespace

at::Tensor apply_magnitude(const LoraLinear& layer, const at::Tensor& x, const at::Tensor& h,
                           at::Tensor& y, const ForwardContext& context) {
  const at::Tensor z = scaled_part(layer, x, y, h, context);
  const at::Tensor scaled_z = times_factor(z, *layer.adapter);
  // With dropout, z began from x' and y still holds x Wᵀ; what z took of the base leaves again.
  if (drops(*layer.adapter, context)) {
    y.add_(scaled_z).sub_(with_adapter(z, h, *layer.adapter, -layer.adapter->scaling));
  } else {
    y = scaled_z;
  }
  return z;
}

at::Tensor gradient_through_magnitude(const LoraLinear& layer, const at::Tensor& dy,
                                      const at::Tensor& z) {
  Adapter& adapter = *layer.adapter;
  adapter.grad_magnitude.addcdiv_((dy * z).sum(0, false, at::kFloat), adapter.norm);
  return times_factor(dy, adapter);
}

}  // namespace qlora::lora
