// A frozen weight of 4-bit floating-point numbers (E2M1) in blocks of 32 columns with a power of
// two each (E8M0), as gpt-oss' files hold the matrices of experts (OCP Microscaling Formats 1.0,
// MXFP4):
//
//   W[r, i] = E2M1(code[r, i]) * 2^(scale[r, i / 32] - 127)
//
// in float32, which holds it exactly, rounded once to what a product takes.
#pragma once

#include "quant/frozen_size.h"
#include "quant/frozen_weight.h"

namespace qlora::quant {

class Mxfp4Weight final : public FrozenWeight {
 public:
  // blocks: uint8 [out, in / 2], a byte's low half first; scales: uint8 [out, in / 32]. Error
  // unless shapes, types and devices fit each other.
  Mxfp4Weight(at::Tensor blocks, at::Tensor scales);

  int64_t out_features() const override { return blocks_.size(0); }
  int64_t in_features() const override { return 2 * blocks_.size(1); }
  at::Device device() const override { return blocks_.device(); }
  std::string format() const override { return "mxfp4"; }
  WeightTraits traits() const override { return {WeightKind::kDecoded, at::kFloat}; }
  int64_t bytes() const override {
    return static_cast<int64_t>(blocks_.nbytes() + scales_.nbytes());
  }
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  // "weight_blocks" and "weight_scales".
  NamedTensors state() const override {
    return {{"weight_blocks", blocks_}, {"weight_scales", scales_}};
  }
  std::vector<at::Tensor*> parts() override { return {&blocks_, &scales_}; }

 private:
  at::Tensor blocks_, scales_;
};

// What an Mxfp4Weight [out, in] is and takes. `in` is a multiple of 32.
FrozenSize mxfp4_size(int64_t out, int64_t in);

}  // namespace qlora::quant
