// Several frozen weights, the rows of one below those of the other, as one: gate and up of an
// expert, which lie in packed modules of their own in files of other tools. Each part keeps its
// format; products take decoded rows.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "quant/frozen_weight.h"

namespace qlora::quant {

class RowsOfSeveral final : public FrozenWeight {
 public:
  // Error unless there are parts, of one width, on one device and none of them stacked experts.
  explicit RowsOfSeveral(std::vector<std::unique_ptr<FrozenWeight>> parts);

  int64_t out_features() const override { return ends_.back(); }
  int64_t in_features() const override { return parts_.front()->in_features(); }
  at::Device device() const override { return parts_.front()->device(); }
  // Each format of the parts once, in their order: "gptq, 4 bit", "gptq, 4 bit and bfloat16".
  std::string format() const override;
  WeightTraits traits() const override { return {WeightKind::kDecoded, at::kFloat}; }
  int64_t bytes() const override;
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  // By the parts' own kernels; parts that are not decoded for their products are here.
  std::unique_ptr<RowsProduct> rows_product(const at::Tensor& x, int64_t expert) const override;
  // Those of the parts: "0.codes", "0.scales", "1.codes", ...
  NamedTensors state() const override;
  std::vector<at::Tensor*> parts() override;

 private:
  std::vector<std::unique_ptr<FrozenWeight>> parts_;
  std::vector<int64_t> ends_;  // of each part's rows
};

}  // namespace qlora::quant
