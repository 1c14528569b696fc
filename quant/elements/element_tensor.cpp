#include "quant/elements/element_tensor.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace qlora::quant {

ElementType element_type(const at::Tensor& tensor, const char* op) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return ElementType::kFloat32;
    case at::kBFloat16:
      return ElementType::kBFloat16;
    case at::kHalf:
      return ElementType::kFloat16;
    default:
      fail<Error>("{}: the tensor must be float32, bfloat16 or float16, got {}", op,
                  c10::toString(tensor.scalar_type()));
  }
}

void check_finite_blocks(const at::Tensor& absmax, const at::Tensor& source, const char* op,
                         const std::string& name) {
  if (at::isfinite(absmax).all().item<bool>()) return;
  const at::Tensor bad = at::nonzero(at::logical_not(at::isfinite(source.reshape(-1))));
  const int64_t index = bad[0][0].item<int64_t>();
  fail<Error>("{}: every element of {} must be finite, got {} at flat index {} of {}", op, name,
              source.reshape(-1)[index].item<float>(), index, source.numel());
}

}  // namespace qlora::quant
