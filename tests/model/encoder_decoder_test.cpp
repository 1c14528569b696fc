#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/seed.h"
#include "lora/attach.h"
#include "model/families/family.h"
#include "model/generate.h"
#include "model/kv_cache.h"
#include "model/load.h"
#include "model/made_weights.h"
#include "model/relative_bias.h"
#include "trainer/loss.h"

namespace qlora {
namespace {

using nlohmann::json;

json t5_config() {
  return {{"model_type", "t5"},
          {"vocab_size", 61},
          {"d_model", 32},
          {"d_kv", 8},
          {"d_ff", 48},
          {"num_layers", 2},
          {"num_heads", 4},
          {"num_decoder_layers", 3},
          {"pad_token_id", 0},
          {"decoder_start_token_id", 3},
          {"eos_token_id", 1},
          {"tie_word_embeddings", false},
          {"dropout_rate", 0.0},
          {"feed_forward_proj", "gated-gelu"},
          {"torch_dtype", "float32"}};
}

model::Architecture t5(const json& changes = json::object()) {
  json config = t5_config();
  config.update(changes);
  return model::read_architecture(io::JsonNode(config, "config.json"));
}

// Larger weights than made ones, so that attention is no plain mean.
std::unique_ptr<model::CausalLm> t5_model(const json& changes = json::object()) {
  const auto source = model::made_weights(t5(changes));
  model::ModelOptions options;
  options.dtype = "float32";
  quant::QuantizationOptions quantization;
  quantization.method = "none";
  auto model = model::load_model(*source, options, quantization, at::kCPU, at::kFloat,
                                 [](const std::string&, const at::Tensor& weight) {
                                   return std::make_unique<quant::DenseWeight>(weight * 10);
                                 });
  model->encoder_bias.table.mul_(50);
  model->decoder_bias.table.mul_(50);
  model->embedding.weight.mul_(30);
  return model;
}

std::unique_ptr<lora::AdapterSet> adapters_of(model::CausalLm& model,
                                              const std::vector<std::string>& targets) {
  lora::LoraOptions options;
  options.rank = 3;
  options.alpha = 3;
  options.targets = targets;
  auto adapters =
      std::make_unique<lora::AdapterSet>(options, model.parts(), model.compute_dtype(), 5);
  at::Tensor values = adapters->values();
  for (int64_t i = 0; i < values.numel(); ++i)
    values.data_ptr<float>()[i] = 0.1f * normal(9, static_cast<uint64_t>(i));
  adapters->publish();
  return adapters;
}

void append(std::vector<int32_t>& tokens, std::vector<int32_t>& bounds, int length, uint64_t key) {
  if (bounds.empty()) bounds = {0};
  for (int i = 0; i < length; ++i)
    tokens.push_back(static_cast<int32_t>(uniform_integer(key, static_cast<uint64_t>(i), 61)));
  bounds.push_back(static_cast<int32_t>(tokens.size()));
}

// Pairs of a source's length and a decoder input's; pair p has the tokens of number first + p.
model::ForwardInput pairs(const std::vector<std::pair<int, int>>& lengths, uint64_t first = 0) {
  model::ForwardInput input;
  for (const auto& [source, target] : lengths) {
    append(input.source.tokens, input.source.cu_seqlens, source, 2 * first);
    append(input.tokens, input.cu_seqlens, target, 2 * first + 1);
    for (int32_t i = 0; i < target; ++i) input.positions.push_back(i);
    ++first;
  }
  return input;
}

TEST(RelativeBias, BucketsOfAnEncoder) {
  const model::RelativeBiasSpec spec{.buckets = 32, .heads = 1, .bidirectional = true};
  const std::vector<std::pair<int, int>> wanted = {
      {-200, 15}, {-128, 15}, {-91, 15}, {-90, 14}, {-64, 14}, {-45, 12}, {-32, 12},
      {-23, 11},  {-16, 10},  {-12, 9},  {-11, 8},  {-8, 8},   {-7, 7},   {-1, 1},
      {0, 0},     {1, 17},    {7, 23},   {8, 24},   {11, 24},  {12, 25},  {16, 26},
      {32, 28},   {64, 30},   {128, 31}, {200, 31}};
  for (const auto& [distance, bucket] : wanted)
    EXPECT_EQ(relative_bucket(distance, spec), bucket) << distance;
}

TEST(RelativeBias, BucketsOfADecoder) {
  const model::RelativeBiasSpec spec{.buckets = 32, .heads = 1};
  const std::vector<std::pair<int, int>> wanted = {
      {-200, 31}, {-113, 31}, {-112, 30}, {-64, 26}, {-32, 21}, {-21, 18}, {-20, 17},
      {-19, 17},  {-18, 16},  {-16, 16},  {-15, 15}, {-1, 1},   {0, 0},    {5, 0}};
  for (const auto& [distance, bucket] : wanted)
    EXPECT_EQ(relative_bucket(distance, spec), bucket) << distance;
}

TEST(RelativeBias, AColumnForEachDistance) {
  const model::RelativeBiasSpec spec{.buckets = 32, .heads = 2, .bidirectional = true};
  model::RelativeBias bias;
  bias.table = at::arange(64, at::kFloat).view({32, 2});
  const at::Tensor biases = bias.by_distance(spec, 300);
  ASSERT_EQ(biases.sizes(), (std::vector<int64_t>{2, 599}));
  for (const int64_t distance : {-299, -17, 0, 1, 250})
    for (const int64_t head : {0, 1})
      EXPECT_EQ(biases[head][299 + distance].item<float>(),
                static_cast<float>(2 * relative_bucket(distance, spec) + head));
}

TEST(T5, ItsDescription) {
  const model::Architecture a = t5();
  EXPECT_EQ(a.num_layers(), 5);
  EXPECT_EQ(a.module(1, {"layer.0.SelfAttention.q", ""}),
            "encoder.block.1.layer.0.SelfAttention.q");
  EXPECT_EQ(a.module(2, {"layer.1.EncDecAttention.k", ""}),
            "decoder.block.0.layer.1.EncDecAttention.k");
  EXPECT_EQ(a.linear_modules().size(), 2 * (4 + 3) + 3 * (4 + 4 + 3));
  EXPECT_EQ(a.decoder_tokens.start, 3);
  EXPECT_EQ(a.logit_multiplier, 1);
  EXPECT_DOUBLE_EQ(t5({{"tie_word_embeddings", true}}).logit_multiplier, 1 / std::sqrt(32.0));
  EXPECT_EQ(t5({{"tie_word_embeddings", true}, {"scale_decoder_outputs", false}}).logit_multiplier,
            1);
  EXPECT_EQ(t5({{"model_type", "mt5"}, {"tie_word_embeddings", true}}).logit_multiplier, 1);
  EXPECT_THROW(t5({{"feed_forward_proj", "gated-tanh"}}), FormatError);
  EXPECT_THROW(t5({{"is_encoder_decoder", false}}), FormatError);
}

TEST(T5, ADocumentSeesItsOwnSourceAlone) {
  const auto model = t5_model();
  at::NoGradGuard no_grad;
  const std::vector<std::pair<int, int>> lengths = {{5, 7}, {12, 3}, {1, 1}};
  const at::Tensor together = model->hidden(pairs(lengths));
  int64_t begin = 0;
  for (size_t d = 0; d < lengths.size(); ++d) {
    const at::Tensor alone = model->hidden(pairs({lengths[d]}, d));
    EXPECT_TRUE(at::allclose(alone, together.narrow(0, begin, lengths[d].second), 1e-4, 1e-5)) << d;
    begin += lengths[d].second;
  }
}

TEST(T5, AnEncoderSeesAllOfATextAndADecoderWhatIsBefore) {
  const auto model = t5_model();
  at::NoGradGuard no_grad;
  model::ForwardInput input = pairs({{6, 8}});
  const at::Tensor before = model->hidden(input);
  input.tokens[7] = (input.tokens[7] + 1) % 61;
  const at::Tensor other_end = model->hidden(input);
  EXPECT_TRUE(at::equal(before.narrow(0, 0, 7), other_end.narrow(0, 0, 7)));
  input = pairs({{6, 8}});
  input.source.tokens[5] = (input.source.tokens[5] + 1) % 61;
  EXPECT_FALSE(at::allclose(before[0], model->hidden(input)[0], 1e-4, 1e-5));
}

TEST(T5, ASourceMustBeThere) {
  const auto model = t5_model();
  model::ForwardInput input = pairs({{6, 8}});
  input.source = {};
  EXPECT_THROW(model->hidden(input), Error);
}

double loss_and_gradients(model::CausalLm& model, lora::AdapterSet& adapters,
                          const model::ForwardInput& input) {
  adapters.zero_gradients();
  const std::vector<int32_t> targets(input.tokens.size(), 7);
  const at::Tensor loss = trainer::fused_cross_entropy(model.hidden(input), targets, model.head,
                                                       0.1, model.context(input));
  loss.backward();
  return loss.item<double>();
}

TEST(T5, GradientsMatchFiniteDifferences) {
  const auto model = t5_model();
  const auto adapters = adapters_of(*model, {"all-linear"});
  const model::ForwardInput input = pairs({{6, 8}, {3, 4}});
  loss_and_gradients(*model, *adapters, input);
  const at::Tensor gradients = adapters->gradients().clone();
  for (const auto& tensor : adapters->tensors())
    EXPECT_GT(tensor.gradient.abs().max().item<float>(), 0) << tensor.name;
  const double norm = gradients.norm().item<double>();
  at::Tensor values = adapters->values();
  const at::Tensor start = values.clone();
  const auto loss_at = [&](double offset) {
    values.copy_(start + gradients * (offset / norm));
    adapters->publish();
    at::NoGradGuard no_grad;
    return trainer::fused_cross_entropy(model->hidden(input),
                                        std::vector<int32_t>(input.tokens.size(), 7), model->head,
                                        0.1, model->context(input))
        .item<double>();
  };
  // The loss changes by about 2e-3, beside which fp32's rounding of it is small.
  const double step = 1e-3 / std::max(norm, 1.0);
  EXPECT_NEAR((loss_at(step) - loss_at(-step)) / (2 * step), norm, 1e-2 * norm);
}

TEST(T5, RecomputedLayersGiveTheSameBits) {
  const std::vector<std::vector<std::string>> choices = {
      {"all-linear"},
      {"EncDecAttention.k"},                         // nothing of the encoder
      {"encoder.block.1.layer.0.SelfAttention.q"}};  // nothing of the decoder
  for (const auto& targets : choices) {
    const auto model = t5_model();
    const auto adapters = adapters_of(*model, targets);
    model::ForwardInput input = pairs({{6, 8}, {3, 4}});
    input.training = true;
    const double kept = loss_and_gradients(*model, *adapters, input);
    const at::Tensor gradients = adapters->gradients().clone();
    EXPECT_GT(gradients.abs().max().item<float>(), 0);
    for (const auto recomputed :
         {model::RecomputedLayers(true), model::RecomputedLayers::first(3)}) {
      input.recompute_layers = recomputed;
      EXPECT_EQ(loss_and_gradients(*model, *adapters, input), kept);
      EXPECT_TRUE(at::equal(adapters->gradients(), gradients)) << targets.front();
    }
  }
}

// The most likely next tokens, by a pass over everything for each.
std::vector<int32_t> answer_by_whole_passes(model::CausalLm& model,
                                            const std::vector<int32_t>& source, int count) {
  at::NoGradGuard no_grad;
  std::vector<int32_t> tokens = {model.architecture().decoder_tokens.start};
  for (int i = 0; i < count; ++i) {
    model::ForwardInput input;
    input.tokens = tokens;
    for (size_t p = 0; p < tokens.size(); ++p) input.positions.push_back(static_cast<int32_t>(p));
    input.cu_seqlens = {0, static_cast<int32_t>(tokens.size())};
    input.source = {source, {0, static_cast<int32_t>(source.size())}};
    tokens.push_back(model.logits(model.hidden(input)).argmax(1)[-1].item<int32_t>());
  }
  return {tokens.begin() + 1, tokens.end()};
}

TEST(T5, GenerationWithACacheGivesWhatWholePassesGive) {
  const auto model = t5_model();
  std::vector<std::vector<int32_t>> sources;
  for (const uint64_t key : {1, 2, 3}) {
    std::vector<int32_t> tokens, bounds;
    append(tokens, bounds, static_cast<int>(4 * key), key);
    sources.push_back(tokens);
  }
  model::GenerateOptions options;
  options.max_new_tokens = 12;
  std::vector<std::vector<int32_t>> wanted;
  for (const auto& source : sources) wanted.push_back(answer_by_whole_passes(*model, source, 12));
  EXPECT_EQ(model::generate(*model, sources, options), wanted);
  // One leaves the batch early: the others keep their own sources.
  const auto stopped =
      model::generate(*model, sources, options, [&](int64_t index, int32_t) { return index != 0; });
  EXPECT_EQ(stopped[0].size(), 1u);
  EXPECT_EQ(stopped[1], wanted[1]);
  EXPECT_EQ(stopped[2], wanted[2]);
}

}  // namespace
}  // namespace qlora
