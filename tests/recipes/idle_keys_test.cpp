#include "recipes/idle_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "io/json.h"
#include "model/families/llama_like.h"
#include "quant/prequantized/stored_format.h"
#include "recipes/ready_recipes.h"
#include "recipes/run_files/run_names.h"
#include "recipes/yaml/recipe_yaml.h"

namespace qlora::recipes {
namespace {
using testing::ElementsAre;
using testing::IsEmpty;
using testing::StartsWith;

constexpr const char* kStart =
    "model: {path: m}\n"
    "quantization: {method: nf4}\n"
    "data: {train: [{path: a.jsonl, format: completion}]}\n"
    "train: {max_steps: 1}\n"
    "output: {dir: run}\n";

std::vector<std::string> idle(const std::vector<std::string>& overrides,
                              const std::string& file = "r.yaml") {
  return idle_keys(parse_recipe(kStart, file, "", overrides));
}

TEST(IdleKeys, EachIsToldWithWhatItNeeds) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"quantization.method=int8", "quantization.double_quant=true"},
       "quantization.double_quant changes nothing: it is of quantization.method nf4 and fp4, found "
       "int8"},
      {{"quantization.method=int8_weight_only", "quantization.threshold=3"},
       "quantization.threshold changes nothing: it is of quantization.method int8, found "
       "int8_weight_only"},
      {{"quantization.method=none", "quantization.skip_modules=[q_proj]"},
       "quantization.skip_modules changes nothing: it is of a quantization.method that quantizes, "
       "found none"},
      {{"quantization.method=as_stored", "quantization.skip_modules=[q_proj]"},
       "quantization.skip_modules changes nothing: it is of a quantization.method that quantizes, "
       "found as_stored"},
      {{"quantization.method=as_stored", "quantization.double_quant=false"},
       "quantization.double_quant changes nothing: it is of quantization.method nf4 and fp4, found "
       "as_stored"},
      {{"model.offload_dir=d"},
       "model.offload_dir changes nothing: it is of a model.device_map, found none"},
      {{"lora.init=pissa", "lora.loftq={iterations: 2, svd: exact}"},
       "lora.loftq.iterations changes nothing: it is of lora.init loftq, found pissa"},
      {{"lora.loftq={svd: exact}"},
       "lora.loftq.svd changes nothing: it is of lora.init loftq and pissa, found default"},
      {{"optim.name=sgd", "optim.eps=1e-3"},
       "optim.eps changes nothing: it is of optimizers that divide by a root, found sgd"},
      {{"optim.name=adamw", "optim.paged_resident_bytes=1000000"},
       "optim.paged_resident_bytes changes nothing: it is of optim.name paged_..., found adamw"},
      {{"optim.schedule=linear", "optim.min_lr_ratio=0.5"},
       "optim.min_lr_ratio changes nothing: it is of optim.schedule cosine, cosine_with_restarts, "
       "polynomial, wsd and reduce_on_plateau, found linear"},
      {{"optim.power=3"},
       "optim.power changes nothing: it is of optim.schedule polynomial, found cosine"},
      {{"optim.plateau_patience=3"},
       "optim.plateau_patience changes nothing: it is of optim.schedule reduce_on_plateau, found "
       "cosine"},
      {{"optim.alpha_ramp=3"},
       "optim.alpha_ramp changes nothing: it is of optim.name ademamix, found paged_adamw_8bit"},
      {{"data.mix_by=tokens"},
       "data.mix_by changes nothing: it is of data sets with a weight, found none"},
      {{"data.cache=false", "data.cache_dir=c"},
       "data.cache_dir changes nothing: it is of data.cache true and auto, found false"},
      {{"data.prompt_style=alpaca"},
       "data.prompt_style changes nothing: it is of rows of format alpaca, found completion"},
      {{"data.chat_template=chatml"},
       "data.chat_template: no row is written with it (format completion); it only goes into the "
       "adapter's directory"},
      {{"train.early_stopping_min_delta=0.1"},
       "train.early_stopping_min_delta changes nothing: it is of train.early_stopping_patience "
       "above 0, found 0"},
      {{"data.train[0].fields={prompt: completion}"},
       "data.train[0].fields: prompt and completion are both read from the rows' completion"},
      {{"data.train[0].fields={prompt: text, completion: text}"},
       "data.train[0].fields: completion and prompt are both read from the rows' text"},
  };
  for (const auto& [overrides, sentence] : cases)
    EXPECT_THAT(idle(overrides), ElementsAre(sentence)) << overrides.back();
}

TEST(IdleKeys, WhatActsOrStandsAtItsDefaultIsNotToldOf) {
  EXPECT_THAT(idle({}), IsEmpty());
  EXPECT_THAT(idle({"optim.schedule=polynomial", "optim.power=3", "optim.min_lr_ratio=0.1"}),
              IsEmpty());
  EXPECT_THAT(idle({"optim.schedule=reduce_on_plateau", "optim.min_lr_ratio=0.1",
                    "data.eval_fraction=0.1", "train.eval_every=1"}),
              IsEmpty());
  EXPECT_THAT(idle({"optim.schedule=linear", "optim.power=1", "optim.eps=1e-8"}), IsEmpty());
  EXPECT_THAT(idle({"lora.init=pissa", "lora.loftq={svd: exact}"}), IsEmpty());
  EXPECT_THAT(idle({"data.train[0].fields={prompt: completion, completion: prompt}"}), IsEmpty());
  EXPECT_THAT(idle({"data.train[0].format=chat", "data.chat_template=chatml"}), IsEmpty());
  // Conversations in a file of prompts are written with it.
  EXPECT_THAT(idle({"data.chat_template=chatml", "train.sample_prompts=prompts.jsonl"}), IsEmpty());
}

TEST(IdleKeys, HowABaseIsQuantizedThatAnotherToolHasQuantizedIsNotForTheRecipeToSay) {
  model::ModelHeader header;
  const std::vector<std::string> overrides = {"quantization.block_size=128",
                                              "quantization.skip_modules=[q_proj]"};
  EXPECT_THAT(idle_keys_on(header, parse_recipe(kStart, "r.yaml", "", overrides)), IsEmpty());
  header.stored = quant::make_stored_format(io::JsonNode(
      {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}, {"bnb_4bit_quant_type", "nf4"}},
      "config.json"));
  EXPECT_THAT(idle_keys_on(header, parse_recipe(kStart, "r.yaml", "", overrides)),
              ElementsAre("quantization.block_size changes nothing: the base is stored quantized, "
                          "and stays as it is",
                          "quantization.skip_modules changes nothing: the base is stored "
                          "quantized, and stays as it is"));
  EXPECT_THAT(idle_keys_on(header, parse_recipe(kStart, "r.yaml", "")), IsEmpty());
}

TEST(IdleKeys, BiasesAndTiedEmbeddingsThatTheModelDoesNotHaveAreTold) {
  model::LlamaSizes sizes;
  sizes.vocab_size = 300;
  sizes.hidden_size = 64;
  sizes.intermediate_size = 128;
  sizes.num_layers = 1;
  sizes.num_heads = 2;
  sizes.num_kv_heads = 1;
  sizes.head_dim = 32;
  model::ModelHeader header;
  const auto idle_on = [&](const std::vector<std::string>& overrides) {
    header.architecture = model::llama_like("llama", sizes);
    return idle_keys_on(header, parse_recipe(kStart, "r.yaml", "", overrides));
  };
  EXPECT_THAT(idle_on({"lora.bias=all"}),
              ElementsAre("lora.bias: all changes nothing: no layer of the model has a bias"));
  EXPECT_THAT(idle_on({"lora.bias=lora_only"}),
              ElementsAre("lora.bias: lora_only changes nothing: none of lora.targets has a bias"));
  const std::vector<std::string> tying = {"lora.ensure_weight_tying=true",
                                          "lora.modules_to_save=[embed_tokens]"};
  EXPECT_THAT(idle_on(tying), ElementsAre(StartsWith("lora.ensure_weight_tying changes nothing")));
  sizes.tied_embeddings = true;
  EXPECT_THAT(idle_on(tying), IsEmpty());
  EXPECT_THAT(idle_on({tying.front()}),
              ElementsAre(StartsWith("lora.ensure_weight_tying changes nothing")));
}

// A run's own record has every key.
TEST(IdleKeys, ARecordedRecipeIsToldOfNoMoreThanItsOriginal) {
  const Recipe recipe = parse_recipe(kStart, "r.yaml", "", {"quantization.method=int8"});
  for (const char* file : {kRecipeFile, kReplacingRecipe})
    EXPECT_THAT(idle_keys(parse_recipe(write_recipe(recipe), std::string("run/") + file, "")),
                IsEmpty());
}

TEST(IdleKeys, ReadyRecipesHaveNone) {
  for (const ReadyRecipe& ready : ready_recipes())
    EXPECT_THAT(idle_keys(parse_recipe(std::string(ready.text), "ready.yaml", "")), IsEmpty())
        << ready.name;
}

}  // namespace
}  // namespace qlora::recipes
