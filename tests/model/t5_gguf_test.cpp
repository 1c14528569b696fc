// GGUF files of T5 as llama.cpp's converter writes them.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/gguf.h"
#include "model/families/family.h"
#include "model/gguf_names.h"
#include "model/hugging_face_config.h"
#include "model/load.h"
#include "model/made_weights.h"
#include "model/same_computation.h"
#include "tests/support/small_models.h"
#include "tests/support/temp_dir.h"

namespace qlora::model {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

using Metadata = std::map<std::string, io::GgufValue>;
using Tensors = std::map<std::string, at::Tensor>;  // by GGUF's names

constexpr const char* kPlain = "relu";
constexpr const char* kGated = "gated-gelu";

Architecture described(const char* mlp, bool tied) {
  return test::described({{"model_type", "t5"},
                          {"vocab_size", 61},
                          {"d_model", 32},
                          {"d_kv", 16},
                          {"d_ff", 48},
                          {"num_layers", 2},
                          {"num_decoder_layers", 3},
                          {"num_heads", 4},
                          {"layer_norm_epsilon", 1e-5},
                          {"pad_token_id", 0},
                          {"decoder_start_token_id", 3},
                          {"relative_attention_num_buckets", 16},
                          {"feed_forward_proj", mlp},
                          {"tie_word_embeddings", tied}});
}

Metadata metadata() {
  return {{"general.architecture", std::string("t5")},
          {"t5.context_length", uint64_t{512}},
          {"t5.embedding_length", uint64_t{32}},
          {"t5.feed_forward_length", uint64_t{48}},
          {"t5.block_count", uint64_t{2}},
          {"t5.decoder_block_count", uint64_t{3}},
          {"t5.attention.head_count", uint64_t{4}},
          {"t5.attention.key_length", uint64_t{16}},
          {"t5.attention.value_length", uint64_t{16}},
          {"t5.attention.layer_norm_epsilon", 1e-5f},
          {"t5.attention.layer_norm_rms_epsilon", 1e-5f},
          {"t5.attention.relative_buckets_count", uint64_t{16}},
          {"t5.decoder_start_token_id", uint64_t{3}}};
}

// A model in which no two numbers are the same.
std::unique_ptr<CausalLm> made_model(const Architecture& a) {
  const auto source = made_weights(a);
  ModelOptions options;
  options.dtype = "float32";
  quant::QuantizationOptions none;
  none.method = "none";
  auto model = load_model(*source, options, none, at::kCPU, at::kFloat);
  float first = 0;
  for (const auto& [name, tensor] : model->frozen_state()) {
    at::Tensor(tensor).copy_(
        at::sin(at::arange(tensor.numel(), at::kFloat) + first).view(tensor.sizes()));
    first += 0.7f;
  }
  return model;
}

// By the names of the gguf package's tables.
Tensors tensors_of(const CausalLm& model) {
  const GgufNames names(model.architecture());
  Tensors tensors;
  for (const auto& [name, tensor] : model.frozen_state())
    tensors[names.of_tensor(name).name] = tensor.contiguous();
  return tensors;
}

std::string write(const test::TempDir& dir, const Metadata& metadata, const Tensors& tensors) {
  std::vector<io::TensorView> headers;
  for (const auto& [name, tensor] : tensors) {
    io::TensorView header;
    header.name = name;
    header.dtype = tensor.scalar_type() == at::kBFloat16 ? io::DType::kBF16 : io::DType::kF32;
    header.shape = tensor.sizes().vec();
    headers.push_back(header);
  }
  std::string path = dir / "t5.gguf";
  io::GgufWriter writer(path, {metadata.begin(), metadata.end()}, headers);
  for (const auto& [name, tensor] : tensors)
    writer.write(name, {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
  writer.finish();
  return path;
}

void expect_same_weights(WeightSource& source, const CausalLm& wanted) {
  const auto found = load_model(source, {}, {}, at::kCPU, at::kFloat);
  EXPECT_THAT(source.unread(), IsEmpty());
  const quant::NamedTensors a = wanted.frozen_state(), b = found->frozen_state();
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].first, b[i].first);
    EXPECT_TRUE(at::equal(a[i].second, b[i].second)) << a[i].first;
  }
}

TEST(T5Gguf, BothKindsAreTheModelsThatTheyWereMadeOf) {
  for (const bool is_flan : {true, false}) {
    const test::TempDir dir;
    const Architecture a = described(is_flan ? kGated : kPlain, !is_flan);
    const auto model = made_model(a);
    const auto source = open_weights(write(dir, metadata(), tensors_of(*model)));
    EXPECT_EQ(first_difference(a, source->architecture()), "");
    EXPECT_EQ(source->architecture().decoder_tokens.start, 3);
    EXPECT_EQ(source->architecture().tied_embeddings, !is_flan);
    expect_same_weights(*source, *model);
  }
}

TEST(T5Gguf, TheConfigurationForTransformersIsOfTheSameModel) {
  for (const bool is_flan : {true, false}) {
    const test::TempDir dir;
    const auto model = made_model(described(is_flan ? kGated : kPlain, !is_flan));
    const Architecture a = open_weights(write(dir, metadata(), tensors_of(*model)))->architecture();
    const auto config = hugging_face_config(a);
    const Architecture found = test::described(nlohmann::json::parse(config.dump()));
    EXPECT_EQ(first_difference(a, found), "");
    EXPECT_EQ(found.decoder_tokens.start, 3);
  }
}

// As the tables of the gguf package have them.
TEST(T5Gguf, TensorsHaveTheNamesOfTheirTables) {
  const GgufNames names(described(kGated, false));
  const std::pair<const char*, const char*> pairs[] = {
      {"shared", "token_embd"},
      {"lm_head", "output"},
      {"encoder.final_layer_norm", "enc.output_norm"},
      {"decoder.final_layer_norm", "dec.output_norm"},
      {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "enc.blk.0.attn_rel_b"},
      {"decoder.block.0.layer.0.SelfAttention.relative_attention_bias", "dec.blk.0.attn_rel_b"},
      {"encoder.block.1.layer.0.layer_norm", "enc.blk.1.attn_norm"},
      {"encoder.block.1.layer.0.SelfAttention.q", "enc.blk.1.attn_q"},
      {"encoder.block.1.layer.0.SelfAttention.o", "enc.blk.1.attn_o"},
      {"encoder.block.1.layer.1.layer_norm", "enc.blk.1.ffn_norm"},
      {"encoder.block.1.layer.1.DenseReluDense.wi_0", "enc.blk.1.ffn_gate"},
      {"encoder.block.1.layer.1.DenseReluDense.wi_1", "enc.blk.1.ffn_up"},
      {"encoder.block.1.layer.1.DenseReluDense.wo", "enc.blk.1.ffn_down"},
      {"decoder.block.2.layer.0.SelfAttention.v", "dec.blk.2.attn_v"},
      {"decoder.block.2.layer.1.layer_norm", "dec.blk.2.cross_attn_norm"},
      {"decoder.block.2.layer.1.EncDecAttention.k", "dec.blk.2.cross_attn_k"},
      {"decoder.block.2.layer.1.EncDecAttention.o", "dec.blk.2.cross_attn_o"},
      {"decoder.block.2.layer.2.layer_norm", "dec.blk.2.ffn_norm"},
      {"decoder.block.2.layer.2.DenseReluDense.wo", "dec.blk.2.ffn_down"}};
  for (const auto& [hugging_face, gguf] : pairs)
    EXPECT_EQ(names.of_tensor(std::string(hugging_face) + ".weight").name,
              std::string(gguf) + ".weight");
  EXPECT_EQ(GgufNames(described(kPlain, true))
                .of_tensor("decoder.block.0.layer.2.DenseReluDense.wi.weight")
                .name,
            "dec.blk.0.ffn_up.weight");
}

// It scales what its head reads, as T5 does with its embedding.
TEST(T5Gguf, AHeadThatIsTheEmbeddingOnceMoreIsTied) {
  const test::TempDir dir;
  const Architecture a = described(kPlain, true);
  const auto model = made_model(a);
  Tensors tensors = tensors_of(*model);
  tensors["output.weight"] = tensors.at("token_embd.weight").clone();
  const auto source = open_weights(write(dir, metadata(), tensors));
  EXPECT_TRUE(source->architecture().tied_embeddings);
  EXPECT_DOUBLE_EQ(source->architecture().logit_multiplier, 1 / std::sqrt(32.0));
  expect_same_weights(*source, *model);
}

TEST(T5Gguf, TheTableThatCrossAttentionDoesNotUseIsPassedOver) {
  const test::TempDir dir;
  const auto model = made_model(described(kPlain, true));
  Tensors tensors = tensors_of(*model);
  tensors["dec.blk.0.cross_attn_rel_b.weight"] = at::ones({16, 4});
  expect_same_weights(*open_weights(write(dir, metadata(), tensors)), *model);
}

TEST(T5Gguf, TablesOfBiasesDoNotWidenTheModel) {
  const test::TempDir dir;
  Tensors tensors = tensors_of(*made_model(described(kGated, false)));
  for (auto& [name, tensor] : tensors)
    if (tensor.dim() == 2 && name.find("attn_rel_b") == std::string::npos)
      tensor = tensor.to(at::kBFloat16);
  EXPECT_EQ(open_weights(write(dir, metadata(), tensors))->dtype(), at::kBFloat16);
}

TEST(T5Gguf, WhatTheMetadataLeavesOut) {
  const test::TempDir dir;
  Metadata said = metadata();
  for (const char* key : {"t5.decoder_block_count", "t5.decoder_start_token_id"}) said.erase(key);
  said["tokenizer.ggml.padding_token_id"] = uint64_t{2};
  const Tensors tensors = {{"token_embd.weight", at::zeros({61, 32})}};
  const Architecture a = read_architecture(io::GgufFile(write(dir, said, tensors)));
  EXPECT_EQ(a.encoder.num_layers(), 2);
  EXPECT_EQ(a.decoder.num_layers(), 2);
  EXPECT_EQ(a.decoder_tokens.start, 2);
  EXPECT_EQ(a.decoder_tokens.pad, 2);
  EXPECT_EQ(a.decoder.relative_bias.max_distance, 128);
}

TEST(T5Gguf, WhatIsNotReadIsRefusedByItsName) {
  const test::TempDir dir;
  const auto refused = [&](const char* named, const Metadata& said, const char* tensor = nullptr) {
    Tensors tensors = {{"token_embd.weight", at::zeros({61, 32})}};
    if (tensor) tensors[tensor] = at::zeros({16, 4});
    EXPECT_THAT([&] { read_architecture(io::GgufFile(write(dir, said, tensors))); },
                ThrowsMessage<FormatError>(AllOf(HasSubstr("t5.gguf"), HasSubstr(named))));
  };
  refused("UMT5", metadata(), "enc.blk.1.attn_rel_b.weight");
  refused("UMT5", metadata(), "dec.blk.1.attn_rel_b.weight");
  Metadata said = metadata();
  said["t5.attention.head_count_kv"] = uint64_t{2};
  refused("head_count_kv", said);
  said = metadata();
  said["t5.attention.value_length"] = uint64_t{8};
  refused("value_length", said);
  said = metadata();
  said["t5.decoder_block_count"] = uint64_t{0};
  refused("decoder_block_count", said);
  said = metadata();
  said.erase("t5.attention.relative_buckets_count");
  refused("relative_buckets_count", said);
  refused("t5encoder", {{"general.architecture", std::string("t5encoder")}});
}

}  // namespace
}  // namespace qlora::model
