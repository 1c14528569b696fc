// A frozen weight of codes with a scale and a zero a group (quant/grouped/grouped.h): what GPTQ,
// AWQ, compressed-tensors and others leave. Rows are decoded into a reused buffer for each product;
// few rows of x are multiplied straight from the codes where there is a kernel for them.
#pragma once

#include <string>

#include "quant/frozen_weight.h"
#include "quant/grouped/grouped.h"

namespace qlora::quant {

class GroupedWeight final : public FrozenWeight {
 public:
  // `format` is what reports call it: "gptq, 4 bit". Error of check_grouped().
  GroupedWeight(GroupedTensor weight, std::string format);

  int64_t out_features() const override { return weight_.rows(); }
  int64_t in_features() const override { return weight_.in; }
  at::Device device() const override { return weight_.codes.device(); }
  std::string format() const override { return format_; }
  WeightTraits traits() const override { return {WeightKind::kDecoded, at::kFloat}; }
  int64_t bytes() const override { return weight_.bytes(); }
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  // Of a weight for which grouped_rows_product() has no kernel, some rows are decoded at a time.
  std::unique_ptr<RowsProduct> rows_product(const at::Tensor& x, int64_t expert) const override;
  // "codes", "scales", "zeros" (a single number where there are none), and "group_of" where there
  // is one.
  NamedTensors state() const override;
  std::vector<at::Tensor*> parts() override {
    return {&weight_.codes, &weight_.scales, &weight_.zeros, &weight_.group_of};
  }

  const GroupedTensor& tensor() const { return weight_; }

 private:
  GroupedTensor weight_;
  std::string format_;
};

}  // namespace qlora::quant
