#include "lora/whole_modules.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "lora/attach.h"
#include "tests/support/tiny_model.h"

namespace qlora::lora {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

const std::vector<std::string> kLinear = {"model.layers.0.self_attn.q_proj",
                                          "model.layers.0.mlp.up_proj", "lm_head"};
const std::vector<std::string> kOthers = {"model.embed_tokens", "model.layers.0.input_layernorm",
                                          "model.norm"};

LoraOptions saving(std::vector<std::string> modules, bool ensure = false) {
  LoraOptions options;
  options.modules_to_save = std::move(modules);
  options.ensure_weight_tying = ensure;
  return options;
}

LoraOptions with_tokens(std::map<std::string, std::vector<int64_t>> tokens, bool ensure = false) {
  LoraOptions options;
  options.trainable_token_indices = std::move(tokens);
  options.ensure_weight_tying = ensure;
  return options;
}

TEST(WholeModules, ANameMatchesTheEndOfThePathAsInPeft) {
  EXPECT_TRUE(is_trained_whole(saving({"norm"}), "model.layers.0.input_layernorm"));
  EXPECT_TRUE(is_trained_whole(saving({"norm"}), "model.norm"));
  EXPECT_FALSE(is_trained_whole(saving({"model.norm"}), "model.layers.0.input_layernorm"));
  EXPECT_FALSE(is_trained_whole(saving({"lm_head"}), "model.embed_tokens"));
}

TEST(WholeModules, ANameWithoutAModuleAndPartOfALinearNameAreRefused) {
  EXPECT_THAT([] { check_whole_modules(saving({"classifier"}), kLinear, kOthers); },
              ThrowsMessage<ConfigError>(HasSubstr("embed_tokens, input_layernorm, lm_head")));
  EXPECT_THAT([] { check_whole_modules(saving({"mlp"}), kLinear, kOthers); },
              ThrowsMessage<ConfigError>(HasSubstr("'mlp'")));
  EXPECT_THAT([] { check_whole_modules(saving({"proj"}), kLinear, kOthers); },
              ThrowsMessage<ConfigError>(HasSubstr("q_proj")));
  check_whole_modules(saving({"norm", "q_proj", "lm_head", "embed_tokens"}), kLinear, kOthers);
}

TEST(WholeModules, TiedEmbeddingsPartUnlessTyingIsEnsured) {
  const TrainedEmbeddings apart = trained_embeddings(saving({"embed_tokens"}), true, 10);
  EXPECT_TRUE(apart.whole_embedding);
  EXPECT_FALSE(apart.whole_head || apart.shared);
  for (const char* name : {"embed_tokens", "lm_head"}) {
    const TrainedEmbeddings shared = trained_embeddings(saving({name}, true), true, 10);
    EXPECT_TRUE(shared.whole_embedding && shared.whole_head && shared.shared) << name;
  }
  EXPECT_FALSE(trained_embeddings(saving({"embed_tokens"}, true), false, 10).whole_head);
}

TEST(WholeModules, TrainedTokensOfTiedEmbeddingsAreSharedUnlessTheyDiffer) {
  const TrainedEmbeddings shared =
      trained_embeddings(with_tokens({{"embed_tokens", {4, 2}}}), true, 10);
  EXPECT_TRUE(shared.shared);
  EXPECT_THAT(shared.head_ids, ElementsAre(4, 2));
  const TrainedEmbeddings apart =
      trained_embeddings(with_tokens({{"embed_tokens", {4, 2}}, {"lm_head", {4}}}), true, 10);
  EXPECT_FALSE(apart.shared);
  EXPECT_THAT(apart.head_ids, ElementsAre(4));
  EXPECT_THAT(trained_embeddings(with_tokens({{"embed_tokens", {4}}}), false, 10).head_ids,
              IsEmpty());
  EXPECT_THAT(
      [] {
        trained_embeddings(with_tokens({{"embed_tokens", {4, 2}}, {"lm_head", {4}}}, true), true,
                           10);
      },
      ThrowsMessage<ConfigError>(HasSubstr("ensure_weight_tying")));
}

TEST(WholeModules, AnAdaptedHeadHasTheTokensOfTheEmbeddingAndNoneOfItsOwn) {
  const auto check = [](const LoraOptions& options, bool tied) {
    return [options, tied] {
      check_adapted_head(options, trained_embeddings(options, tied, 10), tied);
    };
  };
  LoraOptions options = with_tokens({{"embed_tokens", {4, 2}}});
  for (const bool tied : {false, true}) EXPECT_NO_THROW(check(options, tied)()) << tied;
  options.use_dora = true;
  EXPECT_NO_THROW(check(options, false)());
  EXPECT_THAT(check(options, true), ThrowsMessage<ConfigError>(HasSubstr("lora.use_dora")));
  EXPECT_THAT(check(with_tokens({{"embed_tokens", {4}}}, true), true),
              ThrowsMessage<ConfigError>(HasSubstr("lora.ensure_weight_tying: lm_head is one of")));
  // PEFT wraps a head with tokens of its own, and cannot wrap one that has an adapter.
  for (const bool tied : {false, true})
    for (const auto& tokens : {std::map<std::string, std::vector<int64_t>>{{"lm_head", {4}}},
                               {{"embed_tokens", {4}}, {"lm_head", {4}}}})
      EXPECT_THAT(check(with_tokens(tokens), tied),
                  ThrowsMessage<ConfigError>(HasSubstr("lora.trainable_token_indices.lm_head")));
}

TEST(WholeModules, WrongTokensAreRefusedByName) {
  const auto message = [](const LoraOptions& options) {
    return [options] { trained_embeddings(options, true, 10); };
  };
  EXPECT_THAT(message(with_tokens({{"embed_tokens", {10}}})),
              ThrowsMessage<ConfigError>(HasSubstr("10 is no token")));
  EXPECT_THAT(message(with_tokens({{"embed_tokens", {3, 3}}})),
              ThrowsMessage<ConfigError>(HasSubstr("3 is there twice")));
  EXPECT_THAT(message(with_tokens({{"q_proj", {3}}})),
              ThrowsMessage<ConfigError>(HasSubstr("only embed_tokens and lm_head")));
  LoraOptions both = with_tokens({{"embed_tokens", {3}}});
  both.modules_to_save = {"lm_head"};
  EXPECT_THAT(message(both), ThrowsMessage<ConfigError>(HasSubstr("keep one of the two")));
}

TEST(WholeModules, TheLogSaysWhatBecomesOfTiedEmbeddings) {
  const auto sentence = [](const LoraOptions& options, bool tied) {
    return tying_sentence(options, trained_embeddings(options, tied, 10), tied, false);
  };
  EXPECT_THAT(sentence(saving({"embed_tokens"}), true), HasSubstr("lm_head stays frozen"));
  EXPECT_THAT(sentence(saving({"embed_tokens"}, true), true), HasSubstr("one trained copy"));
  EXPECT_THAT(sentence(saving({"embed_tokens", "lm_head"}), true), HasSubstr("each is"));
  EXPECT_THAT(sentence(with_tokens({{"embed_tokens", {1}}}), true), HasSubstr("shared by both"));
  const LoraOptions tokens = with_tokens({{"embed_tokens", {1}}});
  EXPECT_THAT(tying_sentence(tokens, trained_embeddings(tokens, true, 10), true, true),
              testing::AllOf(HasSubstr("shared by both"), HasSubstr("two matrices")));
  EXPECT_EQ(sentence(saving({"embed_tokens"}), false), "");
  EXPECT_EQ(sentence(saving({"norm"}), true), "");
}

TEST(WholeModules, TheLogSaysWhoRefusesTheAdapter) {
  EXPECT_EQ(refusal_sentence(LoraOptions()), "");
  EXPECT_THAT(refusal_sentence(saving({"lm_head"})),
              testing::AllOf(HasSubstr("modules_to_save"), HasSubstr("vLLM"),
                             HasSubstr("llama.cpp"), HasSubstr("merged")));
  EXPECT_THAT(refusal_sentence(saving({"norm"})), testing::Not(HasSubstr("llama.cpp")));
}

TEST(WholeModules, ALinearModuleTrainedWholeGetsNoAdapterAndStartsAsTheBase) {
  const auto model = test::tiny_model();
  LoraOptions options = saving({"o_proj"});
  const AdapterSet set(options, model->parts(), at::kFloat, 1);
  for (const AdapterTensor& tensor : set.tensors())
    EXPECT_EQ(tensor.name.find("o_proj.lora"), std::string::npos) << tensor.name;
  const LoraLinear& o = model->layers[1].branches[0].out.layers()[0];
  ASSERT_TRUE(o.trained_weight);
  at::Tensor base = at::empty({32, 32});
  o.base->dequantize_rows(0, 0, 32, base);
  EXPECT_TRUE(at::equal(o.trained_weight->value, base));
}

TEST(WholeModules, ANormWhoseRowsAreModulesOfTheirOwnIsListedRowByRow) {
  const auto model = test::tiny_model();
  NormWeight norm(at::arange(8, at::kFloat).view({2, 4}));
  norm.row_names = {"model.layers.0.self_attn.q_layernorm.norms.0.weight",
                    "model.layers.0.self_attn.q_layernorm.norms.1.weight"};
  TrainableParts parts = model->parts();
  parts.norms.emplace_back("model.layers.0.self_attn.q_layernorm", &norm);
  const AdapterSet set(saving({"q_layernorm"}), parts, at::kFloat, 1);
  ASSERT_TRUE(norm.trained);
  std::vector<std::string> names;
  for (const AdapterTensor& tensor : set.tensors()) {
    if (tensor.name.find("q_layernorm") == std::string::npos) continue;
    const auto row = static_cast<int64_t>(names.size());
    EXPECT_TRUE(at::equal(tensor.value, norm.frozen[row])) << tensor.name;
    EXPECT_EQ(tensor.value.data_ptr(), norm.trained->value[row].data_ptr()) << tensor.name;
    EXPECT_EQ(tensor.gradient.data_ptr(), norm.trained->gradient[row].data_ptr()) << tensor.name;
    names.push_back(tensor.name);
  }
  EXPECT_THAT(names, ElementsAre("base_model.model." + norm.row_names[0],
                                 "base_model.model." + norm.row_names[1]));
}

TEST(WholeModules, ThirtyTwoBitHeadReadsTheMastersInASixteenBitModel) {
  auto model = test::tiny_model(at::kBFloat16);
  model->upcast_from = at::kBFloat16;
  const AdapterSet set(saving({"lm_head"}), model->parts(), at::kBFloat16, 1);
  const TrainedTensor& head = *model->head.layers()[0].trained_weight;
  EXPECT_EQ(head.compute.scalar_type(), at::kFloat);
  EXPECT_EQ(head.compute.data_ptr(), head.value.data_ptr());
}

TEST(AdapterSet, AFailureOnTheWayLeavesAModelWithoutAdapters) {
  const auto model = test::tiny_model();
  LoraOptions options = saving({"norm", "embed_tokens"});
  // Slots are full and most tensors in place when these factors turn out not to fit.
  const at::Tensor wrong = at::zeros({3, 5});
  const GivenFactors given = {{"model.layers.1.mlp.down_proj", {wrong, wrong}}};
  EXPECT_ANY_THROW(AdapterSet(options, model->parts(), at::kFloat, 1, given));
  const TrainableParts parts = model->parts();
  for (LinearGroup* group : parts.all_groups()) {
    EXPECT_FALSE(group->has_adapters());
    EXPECT_FALSE(group->anchor().defined());
    for (const LoraLinear& layer : group->layers()) {
      EXPECT_EQ(layer.adapter, nullptr) << layer.name;
      EXPECT_EQ(layer.trained_weight, nullptr) << layer.name;
    }
  }
  EXPECT_EQ(parts.embedding->trained, nullptr);
  for (const auto& [name, norm] : parts.norms) EXPECT_EQ(norm->trained, nullptr) << name;
  EXPECT_NO_THROW(AdapterSet(options, model->parts(), at::kFloat, 1));
}

}  // namespace
}  // namespace qlora::lora
