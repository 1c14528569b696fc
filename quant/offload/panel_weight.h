// A matrix of 16 or 32 bits that lies elsewhere as a whole and is multiplied panel by panel of its
// rows: the head, where model.device_map has it on the cpu of a GPU or on disk. One panel is on the
// device at a time; on a CPU it is pages of the mapped file, dropped when they have been used,
// while those of the next panel are read ahead.
//
//   y[:, panel] (+)= x W[panel]ᵀ        dx (+)= Σ_panel dy[:, panel] W[panel]
//
// The sum over panels is float32 and rounded once, but where the library multiplies 16-bit factors
// on a CPU: there each panel's share is rounded before.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "quant/frozen_weight.h"

namespace qlora::quant {

// Of its rows at most.
constexpr int64_t kPanelBytes = int64_t{32} << 20;

class PanelWeight final : public FrozenWeight {
 public:
  // `home` [out, in] on the CPU, bf16, fp16 or fp32, contiguous. `in_file`: its bytes are those of
  // a mapped file.
  PanelWeight(at::Tensor home, at::Device device, bool in_file);

  int64_t out_features() const override { return home_.size(0); }
  int64_t in_features() const override { return home_.size(1); }
  at::Device device() const override { return device_; }
  std::string format() const override;
  WeightTraits traits() const override { return {WeightKind::kStored, home_.scalar_type()}; }
  int64_t bytes() const override { return static_cast<int64_t>(home_.nbytes()); }
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  void forward_into(const at::Tensor& x, at::Tensor& y, bool accumulate, Workspace& workspace,
                    int64_t expert = 0) const override;
  void input_gradient_into(const at::Tensor& dy, at::Tensor& dx, bool accumulate,
                           Workspace& workspace, int64_t expert = 0) const override;
  bool multiplies_alone() const override { return true; }
  NamedTensors state() const override { return {{"weight", home_}}; }
  std::vector<at::Tensor*> parts() override { return {&home_}; }
  // Another weight, moved to the host's memory, in the place of this one.
  std::unique_ptr<FrozenWeight> replaced_by(const FrozenWeight& weight) const;

 private:
  at::Tensor rows_at_home(int64_t begin, int64_t end) const {
    return home_.narrow(0, begin, end - begin);
  }
  // Calls visit(first row, panel) with panels on the device as products with `x` take them.
  template <typename Visit>
  void for_each_panel(const at::Tensor& x, const Visit& visit) const;

  at::Tensor home_;
  at::Device device_;
  bool in_file_;
};

}  // namespace qlora::quant
