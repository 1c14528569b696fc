#include "tests/support/tiny_model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <fmt/format.h>

#include "base/seed.h"
#include "model/families/llama_like.h"

namespace qlora::test {
namespace {

at::Tensor random(std::vector<int64_t> shape, uint64_t seed, const std::string& name, float scale) {
  at::Tensor t = at::empty(shape, at::kFloat);
  const uint64_t key = random_key(seed, name);
  for (int64_t i = 0; i < t.numel(); ++i)
    t.data_ptr<float>()[i] = scale * normal(key, static_cast<uint64_t>(i));
  return t;
}

lora::LoraLinear linear(const std::string& name, int64_t out, int64_t in, at::ScalarType dtype,
                        uint64_t seed) {
  lora::LoraLinear layer;
  layer.name = name;
  layer.base = std::make_unique<quant::DenseWeight>(random({out, in}, seed, name, 0.15f).to(dtype));
  return layer;
}

lora::LinearGroup group(std::vector<lora::LoraLinear> layers) {
  return lora::LinearGroup(std::move(layers));
}

template <typename... Layers>
lora::LinearGroup group_of(Layers... layers) {
  std::vector<lora::LoraLinear> all;
  (all.push_back(std::move(layers)), ...);
  return group(std::move(all));
}

}  // namespace

std::unique_ptr<model::CausalLm> tiny_model(at::ScalarType compute, uint64_t seed,
                                            int64_t vocab_size) {
  model::LlamaSizes config;
  config.vocab_size = vocab_size;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.tied_embeddings = true;
  model::Architecture architecture = model::llama_like("llama", config);
  model::keep_rotary_pairs(architecture);
  auto model = std::make_unique<model::CausalLm>(std::move(architecture), at::kCPU, compute);
  model->embedding = random({vocab_size, 32}, seed, "embedding", 0.5f).to(compute);
  model->final_norm = random({32}, seed, "norm", 0.1f) + 1.0;
  model->set_head(std::make_unique<quant::DenseWeight>(model->embedding.weight));
  for (int i = 0; i < 2; ++i) {
    const std::string p = fmt::format("model.layers.{}.", i);
    model::Block layer;
    layer.branches.resize(2);
    model::BranchWeights &attention = layer.branches[0], &mlp = layer.branches[1];
    attention.before = random({32}, seed, p + "n1", 0.1f) + 1.0;
    mlp.before = random({32}, seed, p + "n2", 0.1f) + 1.0;
    attention.in = group_of(linear(p + "self_attn.q_proj", 32, 32, compute, seed),
                            linear(p + "self_attn.k_proj", 16, 32, compute, seed),
                            linear(p + "self_attn.v_proj", 16, 32, compute, seed));
    attention.out = group_of(linear(p + "self_attn.o_proj", 32, 32, compute, seed));
    mlp.in = group_of(linear(p + "mlp.gate_proj", 48, 32, compute, seed),
                      linear(p + "mlp.up_proj", 48, 32, compute, seed));
    mlp.out = group_of(linear(p + "mlp.down_proj", 32, 48, compute, seed));
    model->layers.push_back(std::move(layer));
  }
  return model;
}

std::unique_ptr<lora::AdapterSet> tiny_adapters(model::CausalLm& model, bool random_b,
                                                double dropout) {
  lora::LoraOptions options;
  options.rank = 4;
  options.alpha = 8;
  options.dropout = dropout;
  auto adapters =
      std::make_unique<lora::AdapterSet>(options, model.parts(), model.compute_dtype(), 3);
  if (random_b) {
    at::NoGradGuard no_grad;
    for (const auto& tensor : adapters->tensors())
      if (tensor.name.ends_with("lora_B.weight"))
        tensor.value.copy_(random(tensor.value.sizes().vec(), 5, tensor.name, 0.2f));
    adapters->publish();
  }
  return adapters;
}

model::ForwardInput tiny_input(const std::vector<int>& lengths, uint64_t seed) {
  model::ForwardInput input;
  input.cu_seqlens = {0};
  for (int length : lengths) {
    for (int i = 0; i < length; ++i) {
      input.positions.push_back(i);
      input.tokens.push_back(static_cast<int32_t>(uniform_integer(seed, input.tokens.size(), 61)));
    }
    input.cu_seqlens.push_back(static_cast<int32_t>(input.tokens.size()));
  }
  return input;
}

}  // namespace qlora::test
