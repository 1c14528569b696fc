#include "model/linear_shapes.h"

#include <fmt/format.h>

namespace qlora::model {

std::string LinearShape::module(int64_t layer) const {
  return fmt::format("model.layers.{}.{}", layer, name);
}

std::vector<LinearShape> linear_shapes(const ModelConfig& c) {
  const int64_t queries = c.num_heads * c.head_dim, keys = c.num_kv_heads * c.head_dim;
  const int64_t hidden = c.hidden_size, inner = c.intermediate_size;
  const bool a = c.attention_bias, m = c.mlp_bias;
  return {{Group::kQkv, "self_attn.q_proj", queries, hidden, a},
          {Group::kQkv, "self_attn.k_proj", keys, hidden, a},
          {Group::kQkv, "self_attn.v_proj", keys, hidden, a},
          {Group::kOutput, "self_attn.o_proj", hidden, queries, a},
          {Group::kGateUp, "mlp.gate_proj", inner, hidden, m},
          {Group::kGateUp, "mlp.up_proj", inner, hidden, m},
          {Group::kDown, "mlp.down_proj", hidden, inner, m}};
}

std::vector<std::string> linear_modules(const ModelConfig& config) {
  std::vector<std::string> modules;
  for (int64_t layer = 0; layer < config.num_layers; ++layer)
    for (const LinearShape& shape : linear_shapes(config)) modules.push_back(shape.module(layer));
  return modules;
}

}  // namespace qlora::model
