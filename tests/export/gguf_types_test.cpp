// Types of the tensors in a file, by the choices of llama.cpp's quantizer.
#include "export/gguf_types.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tests/support/small_models.h"

namespace qlora::exporting {
namespace {
using io::DType;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

model::GgufDescription described(nlohmann::json config) {
  return model::describe_for_gguf(test::described(config));
}

model::GgufDescription llama(int64_t layers, bool tied = false) {
  return described(
      {{"model_type", "llama"}, {"num_hidden_layers", layers}, {"tie_word_embeddings", tied}});
}

// The layers in which the tensor is Q6_K.
std::vector<int64_t> layers_in_six_bits(const char* type, const model::GgufDescription& model,
                                        const std::string& tensor) {
  const GgufTypes types(gguf_type(type), model);
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < model.model.num_layers(); ++layer)
    if (types.of(fmt::format("blk.{}.{}.weight", layer, tensor), {256, 512}) == DType::kQ6_K)
      layers.push_back(layer);
  return layers;
}

TEST(GgufTypes, MixturesHaveMoreBitsInTheFirstAndLastEighthAndEveryThirdLayer) {
  const auto model = llama(16);
  for (const char* type : {"q4_k_m", "q5_k_m"})
    for (const char* tensor : {"attn_v", "ffn_down"})
      EXPECT_THAT(layers_in_six_bits(type, model, tensor), ElementsAre(0, 1, 4, 7, 10, 13, 14, 15))
          << type << " " << tensor;
  EXPECT_THAT(layers_in_six_bits("q4_k_m", model, "attn_q"), ElementsAre());
  EXPECT_THAT(layers_in_six_bits("q4_0", model, "ffn_down"), ElementsAre());
}

// What llama.cpp's quantizer made of a file with three layers of an encoder and two of a decoder.
TEST(GgufTypes, LayersOfEncoderAndDecoderAreTakenInTheOrderOfTheirNames) {
  const auto model = described({{"model_type", "t5"},
                                {"d_model", 256},
                                {"d_ff", 512},
                                {"num_layers", 3},
                                {"num_decoder_layers", 2},
                                {"tie_word_embeddings", false}});
  const GgufTypes types(gguf_type("q4_k_m"), model);
  std::vector<std::string> in_six_bits;
  const std::vector<std::string> decoder = {"attn_v", "cross_attn_v", "ffn_down", "attn_q"},
                                 encoder = {"attn_v", "ffn_down", "attn_q"};
  for (const auto& [stack, layers, tensors] :
       {std::tuple("dec", 2, decoder), std::tuple("enc", 3, encoder)})
    for (int layer = 0; layer < layers; ++layer)
      for (const std::string& tensor : tensors)
        if (const std::string name = fmt::format("{}.blk.{}.{}", stack, layer, tensor);
            types.of(name + ".weight", {256, 512}) == DType::kQ6_K)
          in_six_bits.push_back(name);
  EXPECT_THAT(in_six_bits, testing::UnorderedElementsAre(
                               "dec.blk.1.attn_v", "enc.blk.1.attn_v", "enc.blk.2.attn_v",
                               "enc.blk.0.ffn_down", "enc.blk.1.ffn_down", "enc.blk.2.ffn_down"));
  EXPECT_EQ(types.of("enc.blk.0.attn_rel_b.weight", {32, 256}), DType::kF32);
  EXPECT_EQ(types.of("dec.output_norm.weight", {256}), DType::kF32);
  EXPECT_EQ(types.of("dec.blk.0.cross_attn_k.weight", {256, 256}), DType::kQ4_K);
}

TEST(GgufTypes, TheHeadHasSixBitsAndSoHasTheEmbeddingWhereItIsTheHead) {
  const GgufTypes untied(gguf_type("q4_k_m"), llama(2)), tied(gguf_type("q4_k_m"), llama(2, true));
  EXPECT_EQ(untied.of("output.weight", {1000, 512}), DType::kQ6_K);
  EXPECT_EQ(untied.of("token_embd.weight", {1000, 512}), DType::kQ4_K);
  EXPECT_EQ(tied.of("token_embd.weight", {1000, 512}), DType::kQ6_K);
  const GgufTypes eight(gguf_type("q8_0"), llama(2)), four(gguf_type("q4_0"), llama(2));
  EXPECT_EQ(eight.of("output.weight", {1000, 512}), DType::kQ8_0);
  EXPECT_EQ(four.of("output.weight", {1000, 512}), DType::kQ6_K);
}

TEST(GgufTypes, RowsThatFitNoBlockGoToTheNextTypeThatHoldsThem) {
  const auto model = llama(8);
  const auto type = [&](const char* name, int64_t columns) {
    return GgufTypes(gguf_type(name), model).of("blk.3.attn_q.weight", {64, columns});
  };
  EXPECT_EQ(type("q4_k_m", 512), DType::kQ4_K);
  EXPECT_EQ(type("q4_k_m", 288), DType::kQ5_0);
  EXPECT_EQ(type("q5_k_m", 288), DType::kQ5_1);
  EXPECT_EQ(type("q6_k", 288), DType::kQ8_0);
  EXPECT_EQ(type("q6_k", 40), DType::kF16);
  EXPECT_EQ(type("q8_0", 40), DType::kF16);
  EXPECT_EQ(type("bf16", 40), DType::kBF16);
}

TEST(GgufTypes, NormsBiasesRoutersAndPositionsStayFloat32) {
  for (const char* name : {"f16", "q4_k_m"}) {
    const GgufTypes types(gguf_type(name), llama(2));
    EXPECT_EQ(types.of("blk.0.attn_norm.weight", {512}), DType::kF32);
    EXPECT_EQ(types.of("blk.0.attn_q_norm.weight", {4, 512}), DType::kF32);
    EXPECT_EQ(types.of("blk.0.attn_q.bias", {512}), DType::kF32);
    EXPECT_EQ(types.of("blk.0.ffn_gate_exps.bias", {8, 512}), DType::kF32);
    EXPECT_EQ(types.of("blk.0.ffn_gate_inp.weight", {8, 512}), DType::kF32);
    EXPECT_EQ(types.of("position_embd.weight", {64, 512}), DType::kF32);
    EXPECT_EQ(types.of("rope_freqs.weight", {64}), DType::kF32);
  }
}

TEST(GgufTypes, EightExpertsAndFalconHaveRulesOfTheirOwn) {
  const GgufTypes experts(gguf_type("q4_k_m"),
                          described({{"model_type", "mixtral"}, {"num_local_experts", 8}}));
  EXPECT_EQ(experts.of("blk.5.attn_v.weight", {64, 512}), DType::kQ8_0);
  EXPECT_EQ(experts.of("blk.5.attn_k.weight", {64, 512}), DType::kQ8_0);
  EXPECT_EQ(experts.of("blk.5.attn_output.weight", {512, 512}), DType::kQ5_K);
  EXPECT_EQ(experts.of("blk.5.ffn_gate_exps.weight", {8, 64, 512}), DType::kQ4_K);
  const GgufTypes falcon(gguf_type("q4_k_m"),
                         described({{"model_type", "falcon"}, {"num_hidden_layers", 32}}));
  EXPECT_EQ(falcon.of("token_embd.weight", {1000, 512}), DType::kQ8_0);
  EXPECT_EQ(falcon.of("blk.1.ffn_down.weight", {64, 512}), DType::kQ6_K);
  EXPECT_EQ(falcon.of("blk.3.ffn_down.weight", {64, 512}), DType::kQ5_K);
  EXPECT_EQ(falcon.of("blk.4.ffn_down.weight", {64, 512}), DType::kQ4_K);
}

TEST(GgufTypes, AnUnknownOneIsRefusedWithThoseThatAreKnown) {
  EXPECT_THAT([] { gguf_type("q2_k"); }, ThrowsMessage<ConfigError>(HasSubstr("q4_k_m")));
}

}  // namespace
}  // namespace qlora::exporting
