#include "model/causal_lm.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "io/hashing.h"
#include "model/norm.h"
#include "model/recompute.h"
#include "model/swiglu.h"

namespace qlora::model {
namespace {

// A leaf of the group's autograd nodes if it has adapters.
at::Tensor anchor_of(const DecoderLayer& layer) {
  for (const lora::LinearGroup* group : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
    if (group->anchor().defined()) return group->anchor();
  return at::Tensor();
}

void append(quant::NamedTensors& all, const std::string& module, const quant::NamedTensors& part) {
  for (const auto& [name, tensor] : part) all.emplace_back(module + "." + name, tensor);
}

}  // namespace

CausalLm::CausalLm(ModelConfig config, at::Device device, at::ScalarType compute)
    : config_(std::move(config)), device_(device), compute_(compute), rotary_(config_, device) {}

at::Tensor CausalLm::layer_forward(const DecoderLayer& layer, int64_t index,
                                   const at::Tensor& residual,
                                   const AttentionContext& attention_context,
                                   const lora::ForwardContext& context) const {
  const AttentionShape shape{config_.num_heads, config_.num_kv_heads, config_.head_dim};
  const auto first =
      add_rms_norm(residual, at::Tensor(), layer.input_norm, config_.rms_norm_eps, compute_);
  const auto qkv = layer.qkv.forward(first.normed, context);
  const at::Tensor mixed = attention(qkv[0], qkv[1], qkv[2], shape, attention_context, index);
  const at::Tensor attended = layer.o.forward(mixed, context)[0];
  const auto second = add_rms_norm(first.residual, attended, layer.post_attention_norm,
                                   config_.rms_norm_eps, compute_);
  const auto gate_up = layer.gate_up.forward(second.normed, context);
  const at::Tensor activated = swiglu(gate_up[0], gate_up[1]);
  return second.residual + layer.down.forward(activated, context)[0];
}

at::Tensor CausalLm::hidden(const ForwardInput& input) {
  const auto num_tokens = static_cast<int64_t>(input.tokens.size());
  check(num_tokens > 0 && input.positions.size() == input.tokens.size() &&
            input.cu_seqlens.size() >= 2 && input.cu_seqlens.back() == num_tokens,
        "CausalLm: positions and cu_seqlens must describe the {} tokens", num_tokens);
  const at::Tensor ids = at::tensor(input.tokens, at::kInt).to(device_);
  at::Tensor residual = at::embedding(embedding, ids).to(at::kFloat);

  lora::ForwardContext context;
  context.workspace = &workspace_;
  context.adapters_enabled = input.adapters_enabled;
  context.training = input.training;
  AttentionContext attention_context{input.cu_seqlens, rotary_.at_positions(input.positions),
                                     input.cache};
  for (size_t i = 0; i < layers.size(); ++i) {
    const DecoderLayer* layer = &layers[i];
    const auto index = static_cast<int64_t>(i);
    context.dropout_key = input.dropout_key;
    const at::Tensor anchor = anchor_of(*layer);
    if (input.recompute_layers && at::GradMode::is_enabled() &&
        (anchor.defined() || residual.requires_grad()))
      residual = recompute(residual, anchor.defined() ? anchor : residual,
                           [this, layer, index, attention_context, context](const at::Tensor& r) {
                             return layer_forward(*layer, index, r, attention_context, context);
                           });
    else
      residual = layer_forward(*layer, index, residual, attention_context, context);
  }
  if (input.cache)
    for (int64_t s = 0; s + 1 < static_cast<int64_t>(input.cu_seqlens.size()); ++s)
      input.cache->advance(s, input.cu_seqlens[static_cast<size_t>(s) + 1] -
                                  input.cu_seqlens[static_cast<size_t>(s)]);
  return add_rms_norm(residual, at::Tensor(), final_norm, config_.rms_norm_eps,
                      upcast_head ? at::kFloat : compute_)
      .normed;
}

at::Tensor CausalLm::logits(const at::Tensor& hidden_rows) {
  at::NoGradGuard no_grad;
  return head->forward(hidden_rows.detach(), workspace_).to(at::kFloat);
}

std::vector<lora::LinearGroup*> CausalLm::groups() {
  std::vector<lora::LinearGroup*> all;
  for (DecoderLayer& layer : layers)
    for (lora::LinearGroup* group : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
      all.push_back(group);
  return all;
}

quant::NamedTensors CausalLm::frozen_state() const {
  quant::NamedTensors all{{"model.embed_tokens.weight", embedding},
                          {"model.norm.weight", final_norm}};
  if (!config_.tied_embeddings) append(all, "lm_head", head->state());
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::string prefix = fmt::format("model.layers.{}.", i);
    all.emplace_back(prefix + "input_layernorm.weight", layers[i].input_norm);
    all.emplace_back(prefix + "post_attention_layernorm.weight", layers[i].post_attention_norm);
    for (const lora::LinearGroup* group :
         {&layers[i].qkv, &layers[i].o, &layers[i].gate_up, &layers[i].down})
      for (const lora::LoraLinear& linear : group->layers()) {
        append(all, linear.name, linear.base->state());
        if (linear.bias.defined()) all.emplace_back(linear.name + ".bias", linear.bias);
      }
  }
  return all;
}

std::string CausalLm::base_hash() const {
  io::Hasher hasher;
  for (const auto& [name, tensor] : frozen_state()) {
    const at::Tensor bytes = tensor.cpu().contiguous();
    hasher.update(name);
    hasher.update({static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()});
  }
  return hasher.hex();
}

}  // namespace qlora::model
