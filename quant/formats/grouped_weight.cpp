#include "quant/formats/grouped_weight.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/profile.h"
#include "quant/weight_shape.h"

namespace qlora::quant {

GroupedWeight::GroupedWeight(GroupedTensor weight, std::string format)
    : weight_(std::move(weight)), format_(std::move(format)) {
  check_grouped(weight_, format_);
}

void GroupedWeight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                    at::Tensor& out) const {
  const ProfileScope scope("dequantize");
  const WeightShape shape = WeightShape::matrix(out_features(), in_features());
  const int64_t first = shape.first_row(expert, begin, end, "GroupedWeight");
  dequantize_grouped(weight_, first, first + end - begin, out);
}

std::unique_ptr<RowsProduct> GroupedWeight::rows_product(const at::Tensor& x,
                                                         int64_t expert) const {
  std::unique_ptr<RowsProduct> product = grouped_rows_product(weight_, x);
  return product ? std::move(product) : FrozenWeight::rows_product(x, expert);
}

NamedTensors GroupedWeight::state() const {
  NamedTensors all{{"codes", weight_.codes}, {"scales", weight_.scales}};
  all.emplace_back("zeros", weight_.zeros.defined() ? weight_.zeros : at::full({}, weight_.zero));
  if (weight_.group_of.defined()) all.emplace_back("group_of", weight_.group_of);
  return all;
}

}  // namespace qlora::quant
