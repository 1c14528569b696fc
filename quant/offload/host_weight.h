// A frozen weight that stays on the CPU and is multiplied there in float32, whatever the model
// computes on and in: x goes to it, y comes back, and the weight itself never moves. Which weights:
// blocks that quantization.fp32_cpu_offload has in float32 (model/placement.h), as
// llm_int8_enable_fp32_cpu_offload of transformers' BitsAndBytesConfig leaves them unquantized.
//
//   y (+)= round(float32(x) Wᵀ)        dx (+)= round(float32(dy) W)
//
// Those of an adapter are made where its factors and their gradients lie, as of all others.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "quant/frozen_weight.h"

namespace qlora::quant {

class HostWeight final : public FrozenWeight {
 public:
  // `weight` lies on the CPU, x and y on `device`.
  HostWeight(std::unique_ptr<FrozenWeight> weight, at::Device device);

  int64_t num_experts() const override { return weight_->num_experts(); }
  int64_t out_features() const override { return weight_->out_features(); }
  int64_t in_features() const override { return weight_->in_features(); }
  at::Device device() const override { return device_; }
  std::string format() const override { return weight_->format(); }
  WeightTraits traits() const override { return weight_->traits(); }
  int64_t bytes() const override { return weight_->bytes(); }
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  void forward_into(const at::Tensor& x, at::Tensor& y, bool accumulate, Workspace& workspace,
                    int64_t expert = 0) const override;
  void input_gradient_into(const at::Tensor& dy, at::Tensor& dx, bool accumulate,
                           Workspace& workspace, int64_t expert = 0) const override;
  bool multiplies_alone() const override { return true; }
  NamedTensors state() const override { return weight_->state(); }
  std::vector<at::Tensor*> parts() override { return weight_->parts(); }
  // Another weight, moved to the host, in the place of this one.
  std::unique_ptr<FrozenWeight> replaced_by(std::unique_ptr<FrozenWeight> weight) const;

 private:
  std::unique_ptr<FrozenWeight> weight_;
  at::Device device_;
};

}  // namespace qlora::quant
