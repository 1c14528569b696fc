#include "lora/columns.h"

#include <ATen/ATen.h>

#include <array>

namespace qlora::lora {

std::vector<at::Tensor> columns_of(const at::Tensor& all, const std::vector<int64_t>& widths) {
  std::vector<at::Tensor> parts;
  int64_t offset = all.storage_offset();
  for (const int64_t width : widths) {
    // As set_ would do it; a call through the dispatcher takes longer than a small product.
    at::Tensor part = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(all.storage()),
                                                               all.key_set(), all.dtype());
    const std::array<int64_t, 2> sizes{all.size(0), width}, strides{all.stride(0), 1};
    part.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset);
    parts.push_back(std::move(part));
    offset += width;
  }
  return parts;
}

at::Tensor joined_columns(const std::vector<at::Tensor>& parts) {
  const at::Tensor& first = parts.front();
  int64_t width = 0;
  for (const at::Tensor& part : parts) {
    const bool beside = part.dim() == 2 && part.stride(1) == 1 &&
                        part.stride(0) == first.stride(0) && part.size(0) == first.size(0) &&
                        part.scalar_type() == first.scalar_type() &&
                        part.storage().is_alias_of(first.storage()) &&
                        part.storage_offset() == first.storage_offset() + width;
    if (!beside) return at::Tensor();
    width += part.size(1);
  }
  if (width > first.stride(0)) return at::Tensor();
  return first.as_strided({first.size(0), width}, {first.stride(0), 1}, first.storage_offset());
}

}  // namespace qlora::lora
