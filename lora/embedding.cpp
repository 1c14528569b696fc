#include "lora/embedding.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstddef>
#include <map>

#include "base/upload.h"
#include "io/mapped_file.h"
#include "lora/autograd_function.h"

namespace qlora::lora {
namespace {

// Which positions of a batch hold trained tokens, and the trained row of each.
struct Hits {
  at::Tensor positions, rows;  // int64 [hits]
};

Hits hits_of(const TrainedRows& trained, const std::vector<int32_t>& tokens) {
  std::map<int64_t, int64_t> row_of;
  for (size_t i = 0; i < trained.ids.size(); ++i) row_of[trained.ids[i]] = static_cast<int64_t>(i);
  std::vector<int64_t> positions, rows;
  for (size_t i = 0; i < tokens.size(); ++i)
    if (const auto found = row_of.find(tokens[i]); found != row_of.end()) {
      positions.push_back(static_cast<int64_t>(i));
      rows.push_back(found->second);
    }
  const auto device = trained.rows.value.device();
  return {upload(at::tensor(positions, at::kLong), device),
          upload(at::tensor(rows, at::kLong), device)};
}

// gradient[index[i]] += d[i], in the order of i.
void add_rows(at::Tensor gradient, const at::Tensor& index, const at::Tensor& d) {
  if (index.numel() == 0) return;
  // On the CPU index_add_ goes through the rows one by one; on a GPU it adds in any order, while
  // index_put_ sorts first.
  if (gradient.is_cpu())
    gradient.index_add_(0, index, d);
  else
    gradient.index_put_({index}, d, true);
}

at::Tensor ids_tensor(const std::vector<int32_t>& tokens, at::Device device) {
  return upload(at::tensor(tokens, at::kInt), device);
}

at::Tensor frozen_rows(const Embedding& embedding, const std::vector<int32_t>& tokens) {
  const at::Tensor& weight = embedding.weight;
  const at::Tensor rows = at::embedding(weight, ids_tensor(tokens, weight.device()));
  if (embedding.in_file)
    io::drop_touched_pages(
        {static_cast<const std::byte*>(weight.const_data_ptr()), weight.nbytes()});
  return rows.to(embedding.rows_device(), at::kFloat);
}

at::Tensor look_up(const Embedding& embedding, const std::vector<int32_t>& tokens,
                   bool adapters_enabled) {
  if (!adapters_enabled || (!embedding.trained && !embedding.rows))
    return frozen_rows(embedding, tokens);
  if (embedding.trained)
    return at::embedding(embedding.trained->value, ids_tensor(tokens, embedding.rows_device()));
  at::Tensor result = frozen_rows(embedding, tokens);
  const Hits hits = hits_of(*embedding.rows, tokens);
  return result.index_copy_(0, hits.positions,
                            embedding.rows->rows.value.index_select(0, hits.rows));
}

struct EmbedNode : Function<EmbedNode> {
  static Variable forward(AutogradContext* ctx, const Variable& anchor, const Embedding* embedding,
                          const std::vector<int32_t>& tokens) {
    (void)anchor;
    ctx->saved_data["embedding"] = reinterpret_cast<int64_t>(embedding);
    if (embedding->trained) {
      ctx->save_for_backward({ids_tensor(tokens, embedding->rows_device()), at::Tensor()});
    } else {
      const Hits hits = hits_of(*embedding->rows, tokens);
      ctx->save_for_backward({hits.rows, hits.positions});
    }
    return look_up(*embedding, tokens, true);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto* embedding =
        reinterpret_cast<const Embedding*>(ctx->saved_data["embedding"].toInt());
    const auto saved = ctx->get_saved_variables();
    const at::Tensor d = gradients[0].to(at::kFloat);
    if (embedding->trained)
      add_rows(embedding->trained->gradient, saved[0].to(at::kLong), d);
    else
      add_rows(embedding->rows->rows.gradient, saved[0], d.index_select(0, saved[1]));
    return {Variable(), Variable(), Variable()};
  }
};

}  // namespace

at::Tensor Embedding::anchor() const {
  if (trained) return anchor_of(*trained);
  return rows ? anchor_of(rows->rows) : at::Tensor();
}

at::Tensor embed(const Embedding& embedding, const std::vector<int32_t>& tokens,
                 bool adapters_enabled) {
  const at::Tensor anchor = embedding.anchor();
  if (!anchor.defined() || !adapters_enabled || !at::GradMode::is_enabled()) {
    at::NoGradGuard no_grad;
    return look_up(embedding, tokens, adapters_enabled);
  }
  return EmbedNode::apply(anchor, &embedding, tokens);
}

}  // namespace qlora::lora
