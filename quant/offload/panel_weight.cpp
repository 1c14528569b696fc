#include "quant/offload/panel_weight.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <span>
#include <utility>

#include "base/error.h"
#include "io/mapped_file.h"
#include "quant/frozen_size.h"
#include "quant/products/product.h"

namespace qlora::quant {
namespace {

std::span<const std::byte> bytes_of(const at::Tensor& rows) {
  return {static_cast<const std::byte*>(rows.const_data_ptr()), rows.nbytes()};
}

}  // namespace

PanelWeight::PanelWeight(at::Tensor home, at::Device device, bool in_file)
    : home_(std::move(home)), device_(device), in_file_(in_file) {
  check(home_.dim() == 2 && home_.is_contiguous() && home_.is_floating_point() && home_.is_cpu(),
        "PanelWeight: the matrix must be contiguous, of a floating type and on the CPU");
}

std::string PanelWeight::format() const { return dense_format(home_.scalar_type()); }

void PanelWeight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                  at::Tensor& out) const {
  check(expert == 0 && 0 <= begin && begin <= end && end <= out_features(),
        "PanelWeight: rows {} to {} of expert {} must lie within {} rows of one", begin, end,
        expert, out_features());
  const at::Tensor rows = rows_at_home(begin, end);
  out.copy_(rows);
  if (in_file_) io::drop_touched_pages(bytes_of(rows));
}

template <typename Visit>
void PanelWeight::for_each_panel(const at::Tensor& x, const Visit& visit) const {
  const at::ScalarType dtype = rows_dtype(left_operand(x), traits());
  const int64_t row_bytes = in_features() * static_cast<int64_t>(home_.element_size());
  const int64_t most = std::max<int64_t>(kPanelBytes / row_bytes, 1);
  const int64_t num_rows = out_features();
  for (int64_t begin = 0; begin < num_rows; begin += most) {
    const int64_t end = std::min(begin + most, num_rows);
    const at::Tensor rows = rows_at_home(begin, end);
    if (in_file_ && end < num_rows)
      io::read_ahead(bytes_of(rows_at_home(end, std::min(end + most, num_rows))));
    visit(begin, rows.to(device_, /*non_blocking=*/true).to(dtype));
    if (in_file_) io::drop_touched_pages(bytes_of(rows));
  }
}

void PanelWeight::forward_into(const at::Tensor& x, at::Tensor& y, bool accumulate,
                               Workspace& /*workspace*/, int64_t /*expert*/) const {
  for_each_panel(x, [&](int64_t begin, const at::Tensor& panel) {
    multiply_into(x, panel.t(), accumulate, y.narrow(1, begin, panel.size(0)));
  });
}

void PanelWeight::input_gradient_into(const at::Tensor& dy, at::Tensor& dx, bool accumulate,
                                      Workspace& /*workspace*/, int64_t /*expert*/) const {
  const bool wide = dx.scalar_type() == at::kFloat;
  at::Tensor sum = wide ? dx : at::empty(dx.sizes(), dx.options().dtype(at::kFloat));
  if (!accumulate)
    sum.zero_();
  else if (!wide)
    sum.copy_(dx);
  for_each_panel(dy, [&](int64_t begin, const at::Tensor& panel) {
    multiply_into(dy.narrow(1, begin, panel.size(0)), panel, true, sum);
  });
  if (!wide) dx.copy_(sum);
}

std::unique_ptr<FrozenWeight> PanelWeight::replaced_by(const FrozenWeight& weight) const {
  at::Tensor rows = at::empty({weight.out_features(), weight.in_features()},
                              home_.options().dtype(weight.decoded_dtype(at::kFloat)));
  weight.dequantize_rows(0, 0, weight.out_features(), rows);
  return std::make_unique<PanelWeight>(std::move(rows), device_, false);
}

}  // namespace qlora::quant
