#include "model/causal_lm.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/error.h"
#include "lora/whole_modules.h"
#include "model/base_hash.h"
#include "model/norm.h"
#include "model/recompute.h"
#include "model/swiglu.h"

namespace qlora::model {
namespace {

// A leaf of the layer's autograd nodes if anything in it is trained.
at::Tensor anchor_of(const DecoderLayer& layer) {
  for (const lora::NormWeight* norm : {&layer.input_norm, &layer.post_attention_norm})
    if (norm->trained) return lora::anchor_of(*norm->trained);
  for (const lora::LinearGroup* group : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
    if (group->anchor().defined()) return group->anchor();
  return at::Tensor();
}

// What the groups make again instead of keeping it.
lora::RemadeInput normed_again(const NormOutput& in, const at::Tensor& weight, double eps,
                               at::ScalarType compute) {
  return {{in.residual.detach()}, [weight, eps, compute](const std::vector<at::Tensor>& kept) {
            return rms_norm(kept[0], weight, eps, compute);
          }};
}

lora::RemadeInput activated_again(const KeptGates& gates, at::ScalarType compute) {
  return {{gates.gate, gates.up}, [compute](const std::vector<at::Tensor>& kept) {
            return swiglu_again({kept[0], kept[1]}, compute);
          }};
}

void append(quant::NamedTensors& all, const std::string& module, const quant::NamedTensors& part) {
  for (const auto& [name, tensor] : part) all.emplace_back(module + "." + name, tensor);
}

}  // namespace

CausalLm::CausalLm(ModelConfig config, at::Device device, at::ScalarType compute)
    : config_(std::move(config)), device_(device), compute_(compute), rotary_(config_, device) {}

CausalLm::Stream CausalLm::added(const at::Tensor& residual, const lora::LinearGroup& group,
                                 const at::Tensor& x, const lora::ForwardContext& context,
                                 const lora::RemadeInput* remade) {
  if (group.sums_onto(x, context))
    return {group.forward_onto_residual(residual, x, context, remade), at::Tensor()};
  return {residual, group.forward(x, context, remade)[0]};
}

CausalLm::Stream CausalLm::layer_forward(const DecoderLayer& layer, int64_t index,
                                         const Stream& stream,
                                         const AttentionContext& attention_context,
                                         const lora::ForwardContext& context,
                                         bool output_unused) const {
  const AttentionShape shape{config_.num_heads, config_.num_kv_heads, config_.head_dim};
  const bool enabled = context.adapters_enabled;
  const auto norm = [&](const Stream& s, const lora::NormWeight& w) {
    return add_rms_norm(s.residual, s.delta, w.value(enabled), config_.rms_norm_eps, compute_,
                        w.gradient(enabled));
  };
  const auto through_normed = [&](const lora::LinearGroup& group, const NormOutput& in,
                                  const lora::NormWeight& w) {
    if (!context.remakes_inputs) return group.forward(in.normed, context);
    const auto again = normed_again(in, w.value(enabled), config_.rms_norm_eps, compute_);
    return group.forward(in.normed, context, &again);
  };
  const auto first = norm(stream, layer.input_norm);
  const auto qkv = through_normed(layer.qkv, first, layer.input_norm);
  const at::Tensor mixed = attention(qkv[0], qkv[1], qkv[2], shape, attention_context, index);
  const auto second =
      norm(added(first.residual, layer.o, mixed, context), layer.post_attention_norm);
  const auto gate_up = through_normed(layer.gate_up, second, layer.post_attention_norm);
  const bool narrow = narrow_gates && at::GradMode::is_enabled();
  const KeptGates gates =
      keep_gates(gate_up[0], gate_up[1], narrow ? at::kBFloat16 : gate_up[0].scalar_type());
  const at::Tensor activated = swiglu(gate_up[0], gate_up[1], gates);
  lora::ForwardContext last = context;
  last.output_unused = output_unused;
  // Made again of the narrow ones wherever there are such, so that recomputation changes no bit.
  if (!context.remakes_inputs && !narrow)
    return added(second.residual, layer.down, activated, last);
  const auto again = activated_again(gates, compute_);
  return added(second.residual, layer.down, activated, last, &again);
}

lora::ForwardContext CausalLm::context(const ForwardInput& input) {
  lora::ForwardContext context;
  context.workspace = &workspace_;
  context.adapters_enabled = input.adapters_enabled;
  context.training = input.training;
  context.dropout_key = input.dropout_key;
  return context;
}

at::Tensor CausalLm::hidden(const ForwardInput& input) {
  const auto num_tokens = static_cast<int64_t>(input.tokens.size());
  check(num_tokens > 0 && input.positions.size() == input.tokens.size() &&
            input.cu_seqlens.size() >= 2 && input.cu_seqlens.back() == num_tokens,
        "CausalLm: positions and cu_seqlens must describe the {} tokens", num_tokens);
  for (const int32_t token : input.tokens)  // a GPU would read past the matrix
    check(token >= 0 && token < config_.vocab_size,
          "CausalLm: the model has {} tokens, not token {}", config_.vocab_size, token);
  Stream stream{lora::embed(embedding, input.tokens, input.adapters_enabled), at::Tensor()};
  const lora::ForwardContext shared = context(input);
  AttentionContext attention_context{input.cu_seqlens, rotary_.at_positions(input.positions),
                                     input.cache};
  if (device_.is_cuda()) {
    attention_context.boundaries = at::tensor(input.cu_seqlens, at::kInt).to(device_);
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const DecoderLayer* layer = &layers[i];
    const auto index = static_cast<int64_t>(i);
    const at::Tensor anchor = anchor_of(*layer);
    const bool differentiable =
        at::GradMode::is_enabled() && (anchor.defined() || stream.requires_grad());
    lora::ForwardContext own = shared;
    if (!differentiable || !input.recompute_layers.contains(index)) {
      own.remakes_inputs = at::GradMode::is_enabled() && input.training;
      stream = layer_forward(*layer, index, stream, attention_context, own);
      continue;
    }
    const at::Tensor residual = stream.sum();
    const auto summed = [=, this](const at::Tensor& r) {
      const bool again = at::GradMode::is_enabled();
      return layer_forward(*layer, index, {r, at::Tensor()}, attention_context, own, again).sum();
    };
    stream = {recompute(residual, anchor.defined() ? anchor : residual, summed), at::Tensor()};
  }
  if (input.cache)
    for (int64_t s = 0; s + 1 < static_cast<int64_t>(input.cu_seqlens.size()); ++s)
      input.cache->advance(s, input.cu_seqlens[static_cast<size_t>(s) + 1] -
                                  input.cu_seqlens[static_cast<size_t>(s)]);
  if (upcast_from)
    stream = {stream.sum(), at::Tensor()};  // the norm gives another type than delta's
  return add_rms_norm(stream.residual, stream.delta, final_norm.value(input.adapters_enabled),
                      config_.rms_norm_eps, upcast_from ? at::kFloat : compute_,
                      final_norm.gradient(input.adapters_enabled))
      .normed;
}

at::Tensor CausalLm::logits(const at::Tensor& hidden_rows, bool adapters_enabled) {
  at::NoGradGuard no_grad;
  lora::ForwardContext context;
  context.workspace = &workspace_;
  context.adapters_enabled = adapters_enabled;
  return head.forward(hidden_rows.detach(), context)[0].to(at::kFloat);
}

void CausalLm::set_head(std::unique_ptr<quant::FrozenWeight> weight) {
  std::vector<lora::LoraLinear> layer(1);
  layer[0].name = lora::kHeadName;
  layer[0].base = std::move(weight);
  head = lora::LinearGroup(std::move(layer));
}

std::vector<lora::LinearGroup*> CausalLm::groups() {
  std::vector<lora::LinearGroup*> all;
  for (DecoderLayer& layer : layers)
    for (lora::LinearGroup* group : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
      all.push_back(group);
  return all;
}

lora::TrainableParts CausalLm::parts() {
  lora::TrainableParts parts(groups());
  parts.head = &head;
  parts.fp32_head = upcast_from.has_value();
  parts.embedding = &embedding;
  parts.tied = config_.tied_embeddings;
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::string prefix = fmt::format("model.layers.{}.", i);
    parts.norms.emplace_back(prefix + "input_layernorm", &layers[i].input_norm);
    parts.norms.emplace_back(prefix + "post_attention_layernorm", &layers[i].post_attention_norm);
  }
  parts.norms.emplace_back("model.norm", &final_norm);
  return parts;
}

bool CausalLm::embeddings_still_tied() const {
  const lora::LoraLinear& output = head.layers().front();
  if (!config_.tied_embeddings || output.adapter) return false;
  const auto same = [](const lora::TrainedTensor* a, const lora::TrainedTensor* b) {
    return a == nullptr || b == nullptr ? a == b : a->value.data_ptr() == b->value.data_ptr();
  };
  const auto rows_of = [](const std::unique_ptr<lora::TrainedRows>& trained) {
    return trained ? &trained->rows : nullptr;
  };
  return same(embedding.trained.get(), output.trained_weight.get()) &&
         same(rows_of(embedding.rows), rows_of(output.trained_rows));
}

quant::NamedTensors DecoderLayer::frozen_state(int64_t index) const {
  const std::string prefix = fmt::format("model.layers.{}.", index);
  quant::NamedTensors all{{prefix + "input_layernorm.weight", input_norm.frozen},
                          {prefix + "post_attention_layernorm.weight", post_attention_norm.frozen}};
  for (const lora::LinearGroup* group : {&qkv, &o, &gate_up, &down})
    for (const lora::LoraLinear& linear : group->layers()) {
      append(all, linear.name, linear.base->state());
      if (linear.bias.defined()) all.emplace_back(linear.name + ".bias", linear.bias);
    }
  return all;
}

quant::NamedTensors CausalLm::frozen_state() const {
  quant::NamedTensors all{{"model.embed_tokens.weight", embedding.weight},
                          {"model.norm.weight", final_norm.frozen}};
  if (!config_.tied_embeddings) append(all, "lm_head", head.layers().front().base->state());
  for (size_t i = 0; i < layers.size(); ++i)
    for (auto& named : layers[i].frozen_state(static_cast<int64_t>(i)))
      all.push_back(std::move(named));
  return all;
}

std::string CausalLm::base_hash() const {
  BaseHasher hasher;
  // Upcasting changes no value: the hash is that of the weights as they were.
  for (const auto& [name, tensor] : frozen_state()) {
    const bool outer = name.starts_with("model.embed_tokens.") || name.starts_with("lm_head.");
    hasher.add({{name, upcast_from && outer ? tensor.to(*upcast_from) : tensor}});
  }
  return hasher.hex();
}

}  // namespace qlora::model
