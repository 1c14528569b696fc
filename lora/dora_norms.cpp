#include "lora/dora_norms.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace qlora::lora {
namespace {

constexpr int64_t kPanelElements = 1 << 22;

// Calls visit(first row, rows in fp32) for all rows of a weight.
template <typename Visit>
void for_each_row_panel(const quant::FrozenWeight& weight, const Visit& visit) {
  const int64_t out = weight.out_features(), in = weight.in_features();
  const int64_t rows = std::clamp<int64_t>(kPanelElements / in, 1, out);
  const at::Tensor buffer =
      at::empty({rows, in}, at::TensorOptions().dtype(at::kFloat).device(weight.device()));
  for (int64_t begin = 0; begin < out; begin += rows) {
    const int64_t end = std::min(out, begin + rows);
    at::Tensor panel = buffer.narrow(0, 0, end - begin);
    weight.dequantize_rows(0, begin, end, panel);
    visit(begin, panel);
  }
}

}  // namespace

void measure_base(LoraLinear& layer) {
  for_each_row_panel(*layer.base, [&](int64_t begin, const at::Tensor& rows) {
    layer.adapter->base_squares.narrow(0, begin, rows.size(0)).copy_(rows.square().sum(1));
  });
}

void update_norm(LoraLinear& layer) {
  Adapter& adapter = *layer.adapter;
  const at::Tensor& b = adapter.b;
  const double s = adapter.scaling;
  at::Tensor squares = adapter.base_squares.clone();
  for_each_row_panel(*layer.base, [&](int64_t begin, const at::Tensor& rows) {
    const at::Tensor cross = at::mm(rows, adapter.a.t());
    squares.narrow(0, begin, rows.size(0))
        .add_((cross * b.narrow(0, begin, rows.size(0))).sum(1), 2 * s);
  });
  squares.add_((at::mm(b, at::mm(adapter.a, adapter.a.t())) * b).sum(1), s * s);
  // A row of zeros would divide by zero.
  adapter.norm.copy_(squares.clamp_min_(1e-30).sqrt_());
  at::div_out(adapter.factor, adapter.magnitude, adapter.norm);
}

}  // namespace qlora::lora
