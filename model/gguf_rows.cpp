#include "model/gguf_rows.h"

#include <ATen/ATen.h>

namespace qlora::model {
namespace {

// [rows, ...] -> [first..., ...]
std::vector<int64_t> leading(const at::Tensor& rows, std::vector<int64_t> first) {
  for (int64_t d = 1; d < rows.dim(); ++d) first.push_back(rows.size(d));
  return first;
}

// Rows of each head between RoPE's two orders: pairs side by side, [d / 2, 2], and halves, [2,
// d / 2].
at::Tensor turned(const at::Tensor& rows, int64_t head_dim, bool from_pairs) {
  const int64_t heads = rows.size(0) / head_dim, half = head_dim / 2;
  const std::vector<int64_t> shape =
      from_pairs ? std::vector{heads, half, int64_t{2}} : std::vector{heads, int64_t{2}, half};
  return rows.contiguous()
      .view(leading(rows, shape))
      .transpose(1, 2)
      .contiguous()
      .view(rows.sizes());
}

// Rows of all queries, then all keys, then all values in the groups of heads_in_groups().
at::Tensor groups_from_order(const at::Tensor& rows, const AttentionShape& shape) {
  const auto in_groups = [&](int64_t first, int64_t heads) {
    return rows.narrow(0, first * shape.head_dim, heads * shape.head_dim)
        .view(leading(rows, {shape.kv_heads, heads / shape.kv_heads * shape.head_dim}));
  };
  return at::cat({in_groups(0, shape.heads), in_groups(shape.heads, shape.kv_heads),
                  in_groups(shape.heads + shape.kv_heads, shape.kv_heads)},
                 1)
      .view(rows.sizes());
}

at::Tensor order_from_groups(const at::Tensor& rows, const AttentionShape& shape) {
  const int64_t share = shape.share();
  const at::Tensor groups =
      rows.contiguous().view(leading(rows, {shape.kv_heads, share + 2, shape.head_dim}));
  const auto of_all = [&](int64_t first, int64_t count) {
    return groups.narrow(1, first, count)
        .contiguous()
        .view(leading(rows, {shape.kv_heads * count * shape.head_dim}));
  };
  return at::cat({of_all(0, share), of_all(share, 1), of_all(share + 1, 1)});
}

}  // namespace

at::Tensor rows_from_gguf(const at::Tensor& rows, const GgufTensor& stored) {
  if (stored.rows == RowOrder::kRotaryPairs) return turned(rows, stored.attention.head_dim, true);
  if (stored.rows == RowOrder::kQueriesThenKeys) return groups_from_order(rows, stored.attention);
  return rows;
}

at::Tensor rows_to_gguf(const at::Tensor& rows, const GgufTensor& stored) {
  if (stored.rows == RowOrder::kRotaryPairs) return turned(rows, stored.attention.head_dim, false);
  if (stored.rows == RowOrder::kQueriesThenKeys) return order_from_groups(rows, stored.attention);
  return rows;
}

}  // namespace qlora::model
