#include "quant/formats/rows_of_several.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "quant/few_rows/dense_rows_product.h"
#include "quant/weight_shape.h"

namespace qlora::quant {
namespace {

// Calls f(part, first, last, offset) for each part that has some of rows [begin, end): its own rows
// [first, last), which begin `offset` rows behind `begin`.
template <typename F>
void for_parts(const std::vector<int64_t>& ends, int64_t begin, int64_t end, const F& f) {
  int64_t start = 0;
  for (size_t part = 0; part < ends.size(); ++part) {
    const int64_t first = std::max(begin, start), last = std::min(end, ends[part]);
    if (first < last) f(part, first - start, last - start, first - begin);
    start = ends[part];
  }
}

class ProductsBelowEachOther final : public RowsProduct {
 public:
  ProductsBelowEachOther(std::vector<std::unique_ptr<RowsProduct>> products,
                         std::vector<int64_t> ends)
      : products_(std::move(products)), ends_(std::move(ends)) {}

  void sums(int64_t begin, int64_t end, float* sums, int64_t stride) const override {
    for_parts(ends_, begin, end, [&](size_t part, int64_t first, int64_t last, int64_t offset) {
      products_[part]->sums(first, last, sums + offset, stride);
    });
  }

 private:
  std::vector<std::unique_ptr<RowsProduct>> products_;
  std::vector<int64_t> ends_;
};

}  // namespace

RowsOfSeveral::RowsOfSeveral(std::vector<std::unique_ptr<FrozenWeight>> parts)
    : parts_(std::move(parts)) {
  check(!parts_.empty(), "RowsOfSeveral: there must be at least one weight");
  int64_t rows = 0;
  for (const auto& part : parts_) {
    check(part->in_features() == in_features() && part->device() == device() &&
              part->num_experts() == 1,
          "RowsOfSeveral: all weights must be matrices of {} columns on {}, got one of {} on {} "
          "with {} experts",
          in_features(), device().str(), part->in_features(), part->device().str(),
          part->num_experts());
    ends_.push_back(rows += part->out_features());
  }
}

std::string RowsOfSeveral::format() const {
  std::vector<std::string> formats;
  for (const auto& part : parts_)
    if (std::ranges::find(formats, part->format()) == formats.end())
      formats.push_back(part->format());
  return fmt::format("{}", fmt::join(formats, " and "));
}

int64_t RowsOfSeveral::bytes() const {
  int64_t total = 0;
  for (const auto& part : parts_) total += part->bytes();
  return total;
}

void RowsOfSeveral::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                    at::Tensor& out) const {
  constexpr const char* kOp = "RowsOfSeveral";
  WeightShape::matrix(out_features(), in_features()).first_row(expert, begin, end, kOp);
  check(out.is_contiguous() && out.numel() == (end - begin) * in_features(),
        "{}: the output must be contiguous and hold {} elements", kOp,
        (end - begin) * in_features());
  const at::Tensor rows = out.view({end - begin, in_features()});
  for_parts(ends_, begin, end, [&](size_t part, int64_t first, int64_t last, int64_t offset) {
    at::Tensor of_part = rows.narrow(0, offset, last - first);
    parts_[part]->dequantize_rows(0, first, last, of_part);
  });
}

std::unique_ptr<RowsProduct> RowsOfSeveral::rows_product(const at::Tensor& x,
                                                         int64_t expert) const {
  check(expert == 0, "RowsOfSeveral: there is no expert {} among 1", expert);
  std::vector<std::unique_ptr<RowsProduct>> products;
  for (const auto& part : parts_)
    products.push_back(part->traits().kind == WeightKind::kDecoded
                           ? part->rows_product(x, 0)
                           : dequantized_rows_product(*part, 0, x));
  return std::make_unique<ProductsBelowEachOther>(std::move(products), ends_);
}

NamedTensors RowsOfSeveral::state() const {
  NamedTensors all;
  for (size_t part = 0; part < parts_.size(); ++part)
    for (const auto& [name, tensor] : parts_[part]->state())
      all.emplace_back(fmt::format("{}.{}", part, name), tensor);
  return all;
}

std::vector<at::Tensor*> RowsOfSeveral::parts() {
  std::vector<at::Tensor*> all;
  for (const auto& part : parts_)
    for (at::Tensor* tensor : part->parts()) all.push_back(tensor);
  return all;
}

}  // namespace qlora::quant
