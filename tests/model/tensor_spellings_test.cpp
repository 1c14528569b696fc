#include "model/tensor_spellings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>

#include "base/error.h"
#include "tests/support/small_models.h"

namespace qlora::model {
namespace {
using nlohmann::json;
using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::IsEmpty;

using Names = std::vector<std::string>;

// What becomes of a file's tensors of these names.
Names spelled(const json& config, const Names& names) {
  io::TensorFile file;
  for (const std::string& name : names) {
    io::TensorView view;
    view.name = name;
    file.tensors.push_back(view);
  }
  name_as_transformers_does(test::described(config), file);
  Names found;
  for (const io::TensorView& view : file.tensors) found.push_back(view.name);
  return found;
}

// Each name behind the prefix.
Names below(const std::string& prefix, const Names& names) {
  Names all;
  for (const std::string& name : names) all.push_back(prefix + name);
  return all;
}

Names names_of(const test::SmallModel& model) {
  Names names;
  for (const auto& [name, tensor] : model.tensors) names.push_back(name);
  return names;
}

json llama() {
  return {{"model_type", "llama"},   {"vocab_size", 258},      {"hidden_size", 32},
          {"intermediate_size", 48}, {"num_hidden_layers", 2}, {"num_attention_heads", 4}};
}

TEST(TensorSpellings, WhatHasTransformersNamesKeepsThem) {
  for (const test::SmallModel& model :
       {test::small_gpt2(), test::small_gptj(), test::small_opt(), test::small_opt_350m(),
        test::small_bloom(), test::small_falcon(), test::small_ministral3(0)}) {
    const Names names = names_of(model);
    EXPECT_THAT(spelled(model.config, names), ElementsAreArray(names)) << model.config;
  }
}

// As GPT-2 and BLOOM were published.
TEST(TensorSpellings, NamesWithoutThePrefixGetIt) {
  for (const auto& [model, prefix] : {std::pair(test::small_gpt2(), "transformer."),
                                      {test::small_bloom(), "transformer."},
                                      {test::small_falcon(), "transformer."},
                                      {test::small_ministral3(0), "model."}}) {
    const Names names = names_of(model);
    Names bare;
    for (const std::string& name : names) bare.push_back(name.substr(std::string(prefix).size()));
    EXPECT_THAT(spelled(model.config, bare), ElementsAreArray(names)) << prefix;
  }
}

// OPT's modules lie in "model.decoder."; it was published without "model.".
TEST(TensorSpellings, NamesWithTheEndOfThePrefixGetTheRest) {
  for (const test::SmallModel& model : {test::small_opt(), test::small_opt_350m()}) {
    const Names names = names_of(model);
    for (const char* missing : {"model.", "model.decoder."}) {
      Names shorter;
      for (const std::string& name : names)
        shorter.push_back(name.substr(std::string(missing).size()));
      EXPECT_THAT(spelled(model.config, shorter), ElementsAreArray(names)) << missing;
    }
  }
  EXPECT_THAT(spelled(test::small_opt().config, {"lm_head.weight", "model.layers.0.fc1.weight"}),
              ElementsAre("lm_head.weight", "model.decoder.layers.0.fc1.weight"));
}

TEST(TensorSpellings, TheHeadOfGptNeoxIsTheModels) {
  const test::SmallModel model = test::small_gpt_neox();
  EXPECT_THAT(
      spelled(model.config, {"embed_out.weight", "gpt_neox.embed_in.weight", "embed_in.weight"}),
      ElementsAre("lm_head.weight", "gpt_neox.embed_in.weight", "gpt_neox.embed_in.weight"));
  // Only of this family.
  EXPECT_THAT(spelled(llama(), {"embed_out.weight"}), ElementsAre("embed_out.weight"));
}

TEST(TensorSpellings, ATextModelWithinAnotherIsFoundUnderEachOfItsPrefixes) {
  const json config = {{"model_type", "llava"}, {"text_config", llama()}};
  const Names inner = {"embed_tokens.weight", "layers.1.mlp.up_proj.weight", "norm.weight"};
  const Names wanted = below("model.language_model.", inner);
  for (const char* prefix : {"model.language_model.model.", "language_model.model.",
                             "model.language_model.", "language_model.", "model.", ""})
    EXPECT_THAT(spelled(config, below(prefix, inner)), ElementsAreArray(wanted)) << prefix;
  EXPECT_THAT(spelled(config, {"lm_head.weight", "language_model.lm_head.weight"}),
              ElementsAre("lm_head.weight", "lm_head.weight"));
  EXPECT_THAT(spelled(config, {"vision_tower.layers.0.weight", "model.vision_tower.norm.weight",
                               "multi_modal_projector.linear.weight"}),
              IsEmpty());
}

TEST(TensorSpellings, TwoSpellingsOfOneTensorMustAgree) {
  const std::vector<std::string> values = {"abcd", "abcd", "abce"};
  const auto refusal = [&](size_t first, size_t second) -> std::string {
    io::TensorFile file;
    for (const auto& [name, value] : {std::pair("model.layers.0.mlp.up_proj.weight", first),
                                      {"layers.0.mlp.up_proj.weight", second}}) {
      io::TensorView view;
      view.name = name;
      view.dtype = io::DType::kU8;
      view.shape = {4};
      view.bytes = std::as_bytes(std::span(values[value]));
      view.file = "weights";
      file.tensors.push_back(view);
    }
    try {
      name_as_transformers_does(test::described(llama()), file);
    } catch (const FormatError& error) {
      return error.what();
    }
    return "taken";
  };
  EXPECT_EQ(refusal(0, 1), "taken");
  EXPECT_EQ(refusal(0, 2),
            "weights: the tensors model.layers.0.mlp.up_proj.weight and "
            "layers.0.mlp.up_proj.weight are both the model's model.layers.0.mlp.up_proj.weight, "
            "and they differ; keep the one that is meant, and take the other out of the file");
}

TEST(TensorSpellings, ATextModelOutOfAnotherLosesItsPrefix) {
  for (const char* prefix : {"model.language_model.model.", "language_model.model.",
                             "model.language_model.", "model.", ""})
    EXPECT_THAT(spelled(llama(), below(prefix, {"layers.0.self_attn.q_proj.weight"})),
                ElementsAre("model.layers.0.self_attn.q_proj.weight"))
        << prefix;
}

TEST(TensorSpellings, BuffersAreLeftOutAndBiasesOfTheirModulesAreNot) {
  EXPECT_THAT(
      spelled(test::small_gpt2().config,
              {"h.0.attn.bias", "transformer.h.1.attn.masked_bias", "h.0.attn.c_attn.bias"}),
      ElementsAre("transformer.h.0.attn.c_attn.bias"));
  EXPECT_THAT(
      spelled(test::small_gpt_neox().config,
              {"gpt_neox.layers.0.attention.bias", "gpt_neox.layers.0.attention.masked_bias",
               "gpt_neox.layers.0.attention.rotary_emb.inv_freq",
               "gpt_neox.layers.0.attention.dense.bias",
               "gpt_neox.layers.0.attention.query_key_value.bias"}),
      ElementsAre("gpt_neox.layers.0.attention.dense.bias",
                  "gpt_neox.layers.0.attention.query_key_value.bias"));
}

TEST(TensorSpellings, WhatIsNoModuleOfTheModelKeepsItsName) {
  const Names others = {"score.weight", "wtes.weight", "decoder.wte.weight", "model.score.weight"};
  EXPECT_THAT(spelled(test::small_gpt2().config, others), ElementsAreArray(others));
  EXPECT_THAT(spelled(llama(), {"model.classifier.weight", "transformer.h.0.ln_1.weight"}),
              ElementsAre("model.classifier.weight", "transformer.h.0.ln_1.weight"));
}

}  // namespace
}  // namespace qlora::model
