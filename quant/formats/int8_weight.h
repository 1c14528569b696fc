// A frozen weight in 8 bits, a scale a row (quant/int8/int8.h). Its forward product quantizes the
// input too (LLM.int8()), unless it is kept for its size alone (weight-only, W8A16): then, as in
// every backward pass, the weight is dequantized and multiplied. Stacked experts have the scales of
// all their rows one after the other.
#pragma once

#include "quant/frozen_weight.h"
#include "quant/int8/int8.h"

namespace qlora::quant {

struct Int8Products {
  bool weight_only = false;
  double threshold = 6.0;  // of the outlier columns; 0: none
};

class Int8Weight final : public FrozenWeight {
 public:
  // Error unless codes are int8 [out, in] and absmax fp32 [out] of finite numbers >= 0, or
  // [experts, out, in] and [experts * out].
  Int8Weight(Int8Tensor weight, Int8Products products);

  int64_t num_experts() const override { return shape_.experts; }
  int64_t out_features() const override { return shape_.out; }
  int64_t in_features() const override { return shape_.in; }
  at::Device device() const override { return weight_.codes.device(); }
  std::string format() const override { return products_.weight_only ? "int8 (W8A16)" : "int8"; }
  WeightTraits traits() const override {
    return {products_.weight_only ? WeightKind::kDecoded : WeightKind::kInt8, at::kFloat};
  }
  int64_t bytes() const override;
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  std::optional<Int8Factor> int8_factor(int64_t expert = 0) const override;
  NamedTensors state() const override;
  std::vector<at::Tensor*> parts() override { return {&weight_.codes, &weight_.absmax}; }

 private:
  Int8Tensor expert(int64_t index) const;

  Int8Tensor weight_;  // codes [experts * out, in]
  WeightShape shape_;
  Int8Products products_;
};

}  // namespace qlora::quant
