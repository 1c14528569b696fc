#include "model/causal_lm.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/stop.h"
#include "base/upload.h"
#include "lora/whole_modules.h"
#include "model/base_hash.h"
#include "model/block_forward.h"
#include "model/kv_cache.h"
#include "model/norm.h"
#include "model/recompute.h"

namespace qlora::model {

namespace {

at::Tensor query_factors(const QueryScaling& scaling, const std::vector<int32_t>& positions,
                         at::Device device) {
  if (scaling.beta == 0) return {};
  std::vector<float> factors;
  bool all_one = true;
  for (const int32_t position : positions) {
    factors.push_back(
        static_cast<float>(1 + scaling.beta * std::log1p(std::floor(position / scaling.step))));
    all_one &= factors.back() == 1;
  }
  return all_one ? at::Tensor() : upload(at::tensor(factors), device).unsqueeze(1);
}

// A linear layer in float32 whose numbers are all of `dtype` counts as one in that type.
quant::NamedTensors narrowed(const Block& block, quant::NamedTensors state, at::ScalarType dtype) {
  std::set<std::string> weights;
  for (const lora::LinearGroup* group : block.groups())
    for (const lora::LoraLinear& linear : group->layers()) weights.insert(linear.name + ".weight");
  for (auto& [name, tensor] : state) {
    if (!weights.contains(name) || tensor.scalar_type() != at::kFloat) continue;
    const at::Tensor narrow = tensor.to(dtype);
    if (at::equal(narrow.to(at::kFloat), tensor)) tensor = narrow;
  }
  return state;
}

}  // namespace

CausalLm::CausalLm(Architecture architecture, at::Device device, at::ScalarType compute)
    : architecture_(std::move(architecture)), device_(device), compute_(compute) {
  for (const RotarySpec& rotary : architecture_.rotaries)
    rotaries_.emplace_back(rotary, block(0).attention().shape.head_dim, device);
}

CausalLm::~CausalLm() = default;

std::vector<int64_t> CausalLm::cache_widths() const {
  std::vector<int64_t> widths;
  for (int64_t layer = 0; layer < architecture_.num_layers(); ++layer) {
    const bool encodes = layer < architecture_.encoder.num_layers();
    widths.push_back(encodes ? 0 : block(layer).attention().keys());
  }
  return widths;
}

lora::ForwardContext CausalLm::context(const ForwardInput& input) {
  lora::ForwardContext context;
  context.workspace = &workspace_;
  context.adapters_enabled = input.adapters_enabled;
  context.training = input.training;
  context.dropout_key = input.dropout_key;
  context.observer = input.observer;
  return context;
}

// Biases of all positions that keys have, with those in the cache.
at::Tensor CausalLm::position_bias(const AttentionContext& context) {
  if (!architecture_.alibi.present()) return {};
  const int64_t positions = context.most_keys();
  if (!alibi_.defined() || alibi_.size(1) < positions)
    alibi_ = alibi_biases(architecture_.alibi, std::max(positions, int64_t{256}), device_);
  return alibi_;
}

std::shared_ptr<const BlockPass> CausalLm::pass_of(const ForwardInput& input) {
  auto pass = std::make_shared<BlockPass>();
  pass->attention = {input.cu_seqlens, input.cache};
  if (device_.is_cuda())
    pass->attention.boundaries = upload(at::tensor(input.cu_seqlens, at::kInt), device_);
  pass->attention.position_bias = position_bias(pass->attention);
  pass->attention.relative_bias =
      decoder_bias.by_distance(architecture_.decoder.relative_bias, pass->attention.most_keys());
  if (architecture_.has_encoder())
    pass->cross = {.cu_seqlens = input.cu_seqlens,
                   .key_seqlens = input.source.cu_seqlens.empty() && input.cache
                                      ? input.cache->encoded_seqlens()
                                      : input.source.cu_seqlens};
  pass->attention.sinks.resize(layers.size());
  for (size_t layer = 0; layer < layers.size(); ++layer)
    for (const BranchWeights& branch : layers[layer].branches)
      if (branch.sinks.defined()) pass->attention.sinks[layer] = branch.sinks;
  for (const Rotary& rotary : rotaries_)
    pass->rotaries.push_back(rotary.at_positions(input.positions, input.cu_seqlens));
  pass->query_factors = query_factors(architecture_.query_scaling, input.positions, device_);
  pass->compute = compute_;
  pass->narrow_gates = narrow_gates;
  return pass;
}

std::shared_ptr<const BlockPass> CausalLm::pass_of(const SourceTexts& source) {
  auto pass = std::make_shared<BlockPass>();
  pass->attention = {source.cu_seqlens};
  pass->attention.relative_bias =
      encoder_bias.by_distance(architecture_.encoder.relative_bias, pass->attention.longest());
  pass->compute = compute_;
  pass->narrow_gates = narrow_gates;
  return pass;
}

Stream CausalLm::first_stream(const ForwardInput& input, const lora::ForwardContext& context) {
  const EmbeddingSpec& spec = architecture_.embedding;
  at::Tensor x = lora::embed(embedding, input.tokens, input.adapters_enabled);
  if (spec.multiplier != 1) x = x * spec.multiplier;
  if (spec.projection.present()) x = projection.forward(x.to(compute_), context)[0].to(at::kFloat);
  if (const PositionSpec& learned = spec.positions; learned.present()) {
    const int32_t last = *std::ranges::max_element(input.positions);
    check(last + learned.offset < learned.rows,
          "CausalLm: the model has learnt {} positions; a document has more tokens",
          learned.rows - learned.offset);
    const at::Tensor row = upload(at::tensor(input.positions, at::kInt), device_) + learned.offset;
    x = x + at::embedding(positions, row).to(at::kFloat);
  }
  if (spec.norm.present())
    x = add_norm(x, at::Tensor(), embedding_norm, spec.norm.rule, at::kFloat,
                 input.adapters_enabled)
            .normed;
  return {x, at::Tensor()};
}

void CausalLm::require_tokens(const std::vector<int32_t>& tokens) const {
  for (const int32_t token : tokens)  // a GPU would read past the matrix
    check(token >= 0 && token < architecture_.vocab_size,
          "CausalLm: the model has {} tokens, not token {}", architecture_.vocab_size, token);
}

Stream CausalLm::through_layers(int64_t begin, int64_t end, Stream stream,
                                const std::shared_ptr<const BlockPass>& pass,
                                const ForwardInput& input, const at::Tensor& encoded) {
  const lora::ForwardContext shared = context(input);
  const bool with_grad = at::GradMode::is_enabled();
  const bool encoder_is_trained = encoded.defined() && encoded.requires_grad();
  for (int64_t index = begin; index < end; ++index) {
    if (input.obeys_stop) leave_if_stop_wanted();
    const BlockSpec& spec = block(index);
    const Block& weights = layers[static_cast<size_t>(index)];
    const at::Tensor anchor = with_grad ? weights.anchor(spec) : at::Tensor();
    const bool differentiable =
        with_grad && (anchor.defined() || stream.requires_grad() || encoder_is_trained);
    lora::ForwardContext own = shared;
    if (!differentiable || !input.recompute_layers.contains(index)) {
      own.remakes_inputs = with_grad && input.training;
      stream = block_forward(spec, weights, index, stream, *pass, own, false, encoded);
      continue;
    }
    const auto summed = [=, &spec, &weights](const at::Tensor& residual, const at::Tensor& memory) {
      const bool again = at::GradMode::is_enabled();
      return block_forward(spec, weights, index, {residual, at::Tensor()}, *pass, own, again,
                           memory)
          .sum();
    };
    const at::Tensor residual = stream.sum();
    stream = {recompute(residual, encoded, anchor.defined() ? anchor : residual, summed),
              at::Tensor()};
  }
  return stream;
}

at::Tensor CausalLm::encode(const ForwardInput& input) {
  const bool is_cached = input.cache && !input.cache->encoded_seqlens().empty();
  if (!architecture_.has_encoder() || is_cached) return {};
  const SourceTexts& source = input.source;
  const auto num_tokens = static_cast<int64_t>(source.tokens.size());
  check(num_tokens > 0 && source.cu_seqlens.size() == input.cu_seqlens.size() &&
            source.cu_seqlens.back() == num_tokens,
        "CausalLm: each of the {} documents needs a source; they have {} tokens",
        input.cu_seqlens.size() - 1, num_tokens);
  require_tokens(source.tokens);
  const Stream stream =
      through_layers(0, architecture_.encoder.num_layers(),
                     {lora::embed(embedding, source.tokens, input.adapters_enabled), at::Tensor()},
                     pass_of(source), input, at::Tensor());
  if (input.cache) input.cache->set_encoded_seqlens(source.cu_seqlens);
  return add_norm(stream.residual, stream.delta, encoder_norm,
                  architecture_.encoder.final_norm.rule, compute_, input.adapters_enabled)
      .normed;
}

at::Tensor CausalLm::hidden(const ForwardInput& input) {
  const auto num_tokens = static_cast<int64_t>(input.tokens.size());
  check(num_tokens > 0 && input.positions.size() == input.tokens.size() &&
            input.cu_seqlens.size() >= 2 && input.cu_seqlens.back() == num_tokens,
        "CausalLm: positions and cu_seqlens must describe the {} tokens", num_tokens);
  require_tokens(input.tokens);
  const at::Tensor encoded = encode(input);
  const lora::ForwardContext shared = context(input);
  Stream stream = through_layers(architecture_.encoder.num_layers(), architecture_.num_layers(),
                                 first_stream(input, shared), pass_of(input), input, encoded);
  if (input.cache)
    for (int64_t s = 0; s + 1 < static_cast<int64_t>(input.cu_seqlens.size()); ++s)
      input.cache->advance(s, input.cu_seqlens[static_cast<size_t>(s) + 1] -
                                  input.cu_seqlens[static_cast<size_t>(s)]);
  if (upcast_from)
    stream = {stream.sum(), at::Tensor()};  // the norm gives another type than delta's
  const at::ScalarType read_by_head = upcast_from ? at::kFloat : compute_;
  const bool projects = architecture_.head_projection.present();
  at::Tensor last =
      add_norm(stream.residual, stream.delta, final_norm, architecture_.decoder.final_norm.rule,
               projects ? compute_ : read_by_head, input.adapters_enabled)
          .normed;
  if (projects) last = head_projection.forward(last, shared)[0].to(read_by_head);
  // Of the logits, which are products with it.
  return architecture_.logit_multiplier == 1 ? last : last * architecture_.logit_multiplier;
}

at::Tensor CausalLm::first_residual(const ForwardInput& input) {
  at::NoGradGuard no_grad;
  check(!architecture_.has_encoder(), "CausalLm: layers of an encoder cannot be run one by one");
  require_tokens(input.tokens);
  return first_stream(input, context(input)).sum();
}

at::Tensor CausalLm::residual_behind(int64_t index, const at::Tensor& residual,
                                     const ForwardInput& input) {
  at::NoGradGuard no_grad;
  check(!architecture_.has_encoder(), "CausalLm: layers of an encoder cannot be run one by one");
  return through_layers(index, index + 1, {residual, at::Tensor()}, pass_of(input), input, {})
      .sum();
}

at::Tensor CausalLm::logits(const at::Tensor& hidden_rows, bool adapters_enabled) {
  at::NoGradGuard no_grad;
  lora::ForwardContext context;
  context.workspace = &workspace_;
  context.adapters_enabled = adapters_enabled;
  const at::Tensor logits = head.forward(hidden_rows.detach(), context)[0].to(at::kFloat);
  const double cap = architecture_.logit_softcap;
  return cap > 0 ? at::tanh(logits / cap) * cap : logits;
}

void CausalLm::set_head(std::unique_ptr<quant::FrozenWeight> weight, at::Tensor bias) {
  std::vector<lora::LoraLinear> layer(1);
  layer[0].name = architecture_.head.names.hugging_face;
  layer[0].base = std::move(weight);
  layer[0].bias = std::move(bias);
  head = lora::LinearGroup(std::move(layer));
}

std::vector<const lora::LinearGroup*> CausalLm::groups() const {
  std::vector<const lora::LinearGroup*> all;
  if (architecture_.embedding.projection.present()) all.push_back(&projection);
  for (const Block& layer : layers)
    for (const lora::LinearGroup* group : layer.groups()) all.push_back(group);
  if (architecture_.head_projection.present()) all.push_back(&head_projection);
  return all;
}

std::vector<lora::LinearGroup*> CausalLm::groups() {
  std::vector<lora::LinearGroup*> all;
  for (const lora::LinearGroup* group : std::as_const(*this).groups())
    all.push_back(const_cast<lora::LinearGroup*>(group));
  return all;
}

lora::TrainableParts CausalLm::parts() {
  lora::TrainableParts parts(groups());
  parts.head = &head;
  parts.fp32_head = upcast_from.has_value();
  parts.embedding = &embedding;
  parts.names = architecture_.embedding_names();
  parts.tied = architecture_.tied_embeddings;
  parts.names_are_shared = architecture_.is_multimodal;
  parts.has_encoder = architecture_.has_encoder();
  if (const NormSpec& first = architecture_.embedding.norm; first.present())
    parts.norms.emplace_back(first.names.hugging_face, &embedding_norm);
  for (int64_t layer = 0; layer < architecture_.num_layers(); ++layer)
    visit_norms(block(layer), layers[static_cast<size_t>(layer)],
                [&](const NormSpec& spec, lora::NormWeight& norm) {
                  parts.norms.emplace_back(architecture_.module(layer, spec.names), &norm);
                });
  if (const NormSpec& last = architecture_.encoder.final_norm; last.present())
    parts.norms.emplace_back(last.names.hugging_face, &encoder_norm);
  if (const NormSpec& last = architecture_.decoder.final_norm; last.present())
    parts.norms.emplace_back(last.names.hugging_face, &final_norm);
  return parts;
}

bool CausalLm::embeddings_still_tied() const {
  const lora::LoraLinear& output = head.layers().front();
  if (!architecture_.tied_embeddings || output.adapter) return false;
  const auto same = [](const lora::TrainedTensor* a, const lora::TrainedTensor* b) {
    return a == nullptr || b == nullptr ? a == b : a->value.data_ptr() == b->value.data_ptr();
  };
  const auto rows_of = [](const std::unique_ptr<lora::TrainedRows>& trained) {
    return trained ? &trained->rows : nullptr;
  };
  return same(embedding.trained.get(), output.trained_weight.get()) &&
         same(rows_of(embedding.rows), rows_of(output.trained_rows));
}

quant::NamedTensors CausalLm::relative_tables() const {
  quant::NamedTensors all;
  if (const RelativeBiasSpec& spec = architecture_.encoder.relative_bias; spec.present())
    all.emplace_back(spec.tensor(), encoder_bias.table);
  if (const RelativeBiasSpec& spec = architecture_.decoder.relative_bias; spec.present())
    all.emplace_back(spec.tensor(), decoder_bias.table);
  return all;
}

quant::NamedTensors CausalLm::outer_state() const {
  const EmbeddingSpec& first = architecture_.embedding;
  quant::NamedTensors all{{first.names.hugging_face + ".weight", embedding.weight}};
  if (first.positions.present())
    all.emplace_back(first.positions.names.hugging_face + ".weight", positions);
  append_norm(first.norm.names.hugging_face, first.norm, embedding_norm, all);
  for (const lora::LinearGroup* group : {&projection, &head_projection})
    for (const lora::LoraLinear& linear : group->layers()) append_linear(linear, all);
  for (const auto& [name, table] : relative_tables()) all.emplace_back(name, table);
  const NormSpec &encoded = architecture_.encoder.final_norm,
                 &last = architecture_.decoder.final_norm;
  append_norm(encoded.names.hugging_face, encoded, encoder_norm, all);
  append_norm(last.names.hugging_face, last, final_norm, all);
  const lora::LoraLinear& output = head.layers().front();
  if (!architecture_.tied_embeddings)
    append_linear(output, all);
  else if (output.bias.defined())
    all.emplace_back(output.name + ".bias", output.bias);
  return all;
}

quant::NamedTensors CausalLm::frozen_state() const {
  quant::NamedTensors all = outer_state();
  for (size_t i = 0; i < layers.size(); ++i)
    for (auto& named : layers[i].frozen_state(architecture_, static_cast<int64_t>(i)))
      all.push_back(std::move(named));
  return all;
}

void CausalLm::add_outer_to(BaseHasher& hasher) const {
  // Upcasting changes no value: the hash is that of the weights as they were.
  for (const auto& [name, tensor] : outer_state()) {
    const auto is_of = [&name](const TensorNames& outer) {
      return name == outer.hugging_face + ".weight" || name == outer.hugging_face + ".bias";
    };
    const bool outer = is_of(architecture_.embedding.names) || is_of(architecture_.head.names);
    hasher.add({{name, upcast_from && outer ? tensor.to(*upcast_from) : tensor}});
  }
}

void CausalLm::add_layer_to(int64_t layer, BaseHasher& hasher) const {
  const Block& block = layers[static_cast<size_t>(layer)];
  quant::NamedTensors state = block.frozen_state(architecture_, layer);
  if (placement.in_float32(layer))
    state = narrowed(block, std::move(state), upcast_from.value_or(embedding.weight.scalar_type()));
  hasher.add(state);
}

std::string CausalLm::base_hash() const {
  if (!hash_when_read.empty()) return hash_when_read;
  BaseHasher hasher;
  add_outer_to(hasher);
  for (int64_t layer = 0; layer < static_cast<int64_t>(layers.size()); ++layer) {
    if (offload) offload->leave(layer);  // what a pass left near is a copy
    add_layer_to(layer, hasher);
    if (offload) offload->leave(layer);
  }
  return hasher.hex();
}

}  // namespace qlora::model
