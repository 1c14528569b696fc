#include "model/base_hash.h"

#include <ATen/ATen.h>

namespace qlora::model {

void BaseHasher::add(const quant::NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor bytes = tensor.cpu().contiguous();
    hasher_.update(name);
    hasher_.update({static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()});
    bytes_ += static_cast<int64_t>(bytes.nbytes());
  }
}

}  // namespace qlora::model
