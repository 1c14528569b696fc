#include "model/rotary.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/profile.h"
#include "model/rotary_kernels.h"
#include "quant/element_tensor.h"

namespace qlora::model {

Rotary::Rotary(const ModelConfig& config, at::Device device) {
  const auto frequencies = inverse_frequencies(config.rope, config.head_dim);
  inverse_frequencies_ = at::tensor(frequencies, at::kFloat).to(device);
}

RotaryTable Rotary::at_positions(const std::vector<int32_t>& positions) const {
  at::NoGradGuard no_grad;
  const at::Tensor p =
      at::tensor(positions, at::kInt).to(inverse_frequencies_.device(), at::kFloat);
  const at::Tensor angles = p.unsqueeze(1) * inverse_frequencies_.unsqueeze(0);
  return {at::cos(angles), at::sin(angles)};
}

at::Tensor rotate(at::Tensor x, const RotaryTable& table, bool inverse) {
  const ProfileScope scope("rotary");
  const int64_t tokens = x.size(0), half = table.cos.size(1), heads = x.size(1) / (2 * half);
  check(x.stride(1) == 1 && table.cos.size(0) == tokens && x.size(1) == heads * 2 * half,
        "rotate: x must be [tokens, heads * head_dim] with contiguous rows, and have a table row "
        "per token");
  const Rotate arguments{x.mutable_data_ptr(),
                         x.stride(0),
                         quant::element_type(x, "rotate"),
                         table.cos.const_data_ptr<float>(),
                         table.sin.const_data_ptr<float>(),
                         tokens,
                         heads,
                         half,
                         inverse ? -1.0f : 1.0f};
  QLORA_DISPATCH(x.device(), cpu::rotate(arguments),
                 cuda::rotate(arguments, current_stream(x.device())));
  return x;
}

}  // namespace qlora::model
