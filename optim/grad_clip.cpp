#include "optim/grad_clip.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/error.h"
#include "base/profile.h"
#include "optim/grad_clip_kernels.h"

namespace qlora::optim {
namespace {

double sum_of_squares(const at::Tensor& flat) {
  const ProfileScope scope("gradient norm");
  const at::Device device = flat.device();
  at::Tensor sums =
      at::empty({num_norm_blocks(flat.numel())}, at::dtype(at::kDouble).device(device));
  QLORA_DISPATCH(device,
                 cpu::block_sums_of_squares(flat.const_data_ptr<float>(), flat.numel(),
                                            sums.data_ptr<double>()),
                 cuda::block_sums_of_squares(flat.const_data_ptr<float>(), flat.numel(),
                                             sums.data_ptr<double>(), current_stream(device)));
  sums = sums.cpu();
  const double* block = sums.const_data_ptr<double>();
  double sum = 0;
  for (int64_t i = 0; i < sums.numel(); ++i) sum += block[i];
  return sum;
}

}  // namespace

bool GradientNorm::finite() const { return std::isfinite(norm); }

GradientNorm gradient_norm(const at::Tensor& flat, double max_norm) {
  check(flat.scalar_type() == at::kFloat && flat.is_contiguous(),
        "gradient_norm: the gradients must be contiguous fp32, got {}",
        at::toString(flat.scalar_type()));
  check(max_norm >= 0 && std::isfinite(max_norm), "gradient_norm: max_norm must be >= 0, got {}",
        max_norm);
  GradientNorm result;
  result.norm = std::sqrt(sum_of_squares(flat));
  if (!result.finite()) {
    result.scale = 0;
  } else if (max_norm > 0) {
    result.scale = std::min(1.0, max_norm / (result.norm + 1e-6));
  }
  return result;
}

std::string first_nonfinite_gradient(const std::vector<Parameter>& parameters) {
  for (const Parameter& parameter : parameters)
    if (!std::isfinite(sum_of_squares(parameter.gradient))) return parameter.name;
  return "";
}

}  // namespace qlora::optim
