#include "recipes/yaml/recipe_yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "data/chat_template.h"
#include "recipes/fields/reference_page.h"
#include "tests/support/temp_dir.h"

namespace qlora::recipes {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr const char* kSmall =
    "model: {path: m}\n"
    "data: {train: [{path: rows.jsonl}]}\n"
    "train: {max_steps: 3}\n"
    "output: {dir: run}\n";

Recipe parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_recipe(text, "r.yaml", "/base", overrides);
}

std::string refusal(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    parse(text, overrides);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(RecipeYaml, PathsAreRelativeToTheRecipe) {
  const Recipe recipe = parse(kSmall);
  EXPECT_EQ(recipe.model.path, "/base/m");
  EXPECT_EQ(recipe.data.train[0].path, "/base/rows.jsonl");
  EXPECT_EQ(recipe.output.dir, "/base/run");
}

TEST(RecipeYaml, AMapOrListThatIsNoneIsToldWithAnExampleOfItsKey) {
  EXPECT_THAT(refusal(kSmall, {"model.max_memory=3GB"}),
              HasSubstr("a map from devices to sizes, such as {cpu: 30GiB}, got '3GB'"));
  EXPECT_THAT(refusal(kSmall, {"optim.weight_decay_pattern=3"}), HasSubstr("{lora_B: 0.1}"));
  EXPECT_THAT(refusal(kSmall, {"lora.rank_pattern=3"}), HasSubstr("{down_proj: 32}"));
  EXPECT_THAT(refusal(kSmall, {"lora.trainable_tokens={a: b}"}), HasSubstr("[<tool>, </tool>]"));
  EXPECT_THAT(refusal(kSmall, {"lora.trainable_token_indices=x"}),
              HasSubstr("or a map such as {embed_tokens: [5, 6]}"));
  EXPECT_THAT(refusal(kSmall, {"train.sample_prompts={a: b}"}), HasSubstr("What is 7 times 8?"));
  EXPECT_THAT(refusal(kSmall, {"data.train=[{path: x, fields: a}]"}),
              HasSubstr("{output: answer}"));
}

TEST(RecipeYaml, AHubIdStaysAsItIs) {
  for (const char* id : {"org/name", "org/name@v1", "org/name@refs/pr/1"})
    EXPECT_EQ(parse(kSmall, {std::string("model.path=") + id}).model.path, id);
}

TEST(RecipeYaml, WhatIsWrittenReadsBackAsTheSame) {
  const Recipe recipe = parse(std::string(kSmall) +
                              "lora: {rank: 8, alpha: 0.1, targets: [q_proj, \".*up.*\"]}\n"
                              "optim: {betas: [0.8, 0.95], lr: 3.3e-5, name: adamw}\n"
                              "quantization: {method: nf4}\n");
  const Recipe back = parse_recipe(write_recipe(recipe), "w.yaml", "/elsewhere");
  EXPECT_EQ(write_recipe(back), write_recipe(recipe));
  EXPECT_THAT(fixed_differences(recipe, back), IsEmpty());
  EXPECT_EQ(back.optim.betas, (std::vector{0.8, 0.95}));
}

TEST(RecipeYaml, TrainedTokensAreAListOrAMapByModule) {
  using Tokens = std::map<std::string, std::vector<int64_t>>;
  const auto tokens_of = [](const std::string& text) {
    const Recipe recipe =
        parse(std::string(kSmall) + "lora: {trainable_token_indices: " + text + "}\n");
    const Recipe back = parse_recipe(write_recipe(recipe), "w.yaml", "/elsewhere");
    EXPECT_THAT(fixed_differences(recipe, back), IsEmpty());
    EXPECT_EQ(back.lora.trainable_token_indices, recipe.lora.trainable_token_indices);
    return recipe.lora.trainable_token_indices;
  };
  EXPECT_EQ(tokens_of("[7, 2]"), (Tokens{{"embed_tokens", {7, 2}}}));
  EXPECT_EQ(tokens_of("{embed_tokens: [7], lm_head: [2]}"),
            (Tokens{{"embed_tokens", {7}}, {"lm_head", {2}}}));
  EXPECT_EQ(tokens_of("[]"), Tokens());
  EXPECT_THAT(refusal(std::string(kSmall) + "lora: {trainable_token_indices: [a]}\n"),
              HasSubstr("lora.trainable_token_indices"));
}

TEST(RecipeYaml, StochasticRoundingNeedsMastersInBfloat16) {
  EXPECT_THAT(refusal(std::string(kSmall) + "optim: {stochastic_rounding: true}\n"),
              HasSubstr("lora.dtype"));
  const std::string both = "optim: {stochastic_rounding: true}\nlora: {dtype: bfloat16}\n";
  EXPECT_TRUE(parse(std::string(kSmall) + both).optim.stochastic_rounding);
}

TEST(RecipeYaml, RecomputationIsAWordOrANumberOfLayers) {
  for (const char* value : {"auto", "true", "false", "0", "12"}) {
    const Recipe recipe = parse(kSmall, {std::string("train.gradient_checkpointing=") + value});
    EXPECT_EQ(recipe.train.gradient_checkpointing, value);
    const Recipe back = parse_recipe(write_recipe(recipe), "w.yaml", "/elsewhere");
    EXPECT_EQ(back.train.gradient_checkpointing, value);
  }
  for (const char* value : {"-1", "1.5", "some", "''"})
    EXPECT_THAT(refusal(kSmall, {std::string("train.gradient_checkpointing=") + value}),
                HasSubstr("train.gradient_checkpointing must be auto, true, false or a number"));
}

TEST(RecipeYaml, AnUnknownKeyIsPlacedAndTheNearOneNamed) {
  EXPECT_EQ(refusal(std::string(kSmall) + "lora:\n  rnak: 4\n"),
            "r.yaml:6:3: unknown key 'rnak'; did you mean 'rank'?");
}

TEST(RecipeYaml, OtherToolsNamesLeadToOurs) {
  EXPECT_THAT(refusal(std::string(kSmall) + "lora: {lora_alpha: 4}\n"),
              HasSubstr("r.yaml:5:8: unknown key 'lora_alpha'; it is lora.alpha here"));
  EXPECT_THAT(refusal(std::string(kSmall) + "learning_rate: 1e-4\n"), HasSubstr("optim.lr"));
}

TEST(RecipeYaml, ValuesOfLaterWorkAreRefusedByName) {
  EXPECT_THAT(refusal(kSmall, {"lora.init=eva"}),
              HasSubstr("lora.init: eva is not in this version"));
  for (const std::string method : {"gptq", "hqq"})
    EXPECT_THAT(refusal(std::string(kSmall) + "quantization: {method: " + method + "}\n"),
                HasSubstr("quantization.method: " + method +
                          " is not made by a run; qlora quantize --method " + method +
                          " first, then name its directory in model.path"));
  EXPECT_THAT(refusal(std::string(kSmall) + "quantization: {method: aqlm}\n"),
              HasSubstr("quantization.method: aqlm is read, not written: its codebooks cannot hold "
                        "a merged adapter; qlora export --format merged writes 16 bit"));
  EXPECT_THAT(refusal(std::string(kSmall) + "quantization: {method: mxfp4}\n"),
              HasSubstr("quantized so needs no key"));
}

TEST(RecipeYaml, AllProblemsAreToldAtOnceInTheOrderOfTheFile) {
  const std::string told =
      refusal("model: {path: m}\ndata: {train: 7}\ntrain: {max_steps: ten}\nlora: {rank: 0}\n");
  const size_t data = told.find("data.train"), steps = told.find("train.max_steps"),
               rank = told.find("lora.rank"), output = told.find("output.dir is missing");
  EXPECT_LT(data, steps);
  EXPECT_LT(steps, rank);
  EXPECT_NE(rank, std::string::npos);
  EXPECT_NE(output, std::string::npos);
}

TEST(RecipeYaml, OverridesReplaceAddAndReachIntoLists) {
  const Recipe recipe =
      parse(kSmall, {"optim.lr=1e-5", "data.train[0].path=other.jsonl", "train.max_steps=9"});
  EXPECT_EQ(recipe.optim.lr, 1e-5);
  EXPECT_EQ(recipe.data.train[0].path, "/base/other.jsonl");
  EXPECT_EQ(recipe.train.max_steps, 9);
  EXPECT_THAT(refusal(kSmall, {"data.train[1].path=x"}), HasSubstr("--set data.train[1].path=x"));
  EXPECT_THAT(refusal(kSmall, {"optim.lr"}), HasSubstr("section.key=value"));
  EXPECT_THAT(refusal(kSmall, {"optim.lrr=1"}), HasSubstr("did you mean"));
}

TEST(RecipeYaml, AnOverrideTakesThePlaceOfAKeyOfTheFileThatExcludesIt) {
  const Recipe longer = parse(kSmall, {"train.epochs=1.5"});
  EXPECT_EQ(longer.train.epochs, 1.5);
  EXPECT_EQ(longer.train.max_steps, 0);
  EXPECT_THAT(
      longer.left_out,
      ElementsAre("train.max_steps (r.yaml:3:9) is left out, since --set gives train.epochs"));
  const std::string rest = "model: {path: m}\noutput: {dir: run}\ntrain: {epochs: 2}\n";
  const auto with = [&rest](const std::string& keys, const std::string& override_text) {
    return parse(rest + "data: {train: [{path: rows.jsonl}], " + keys + "}\n", {override_text});
  };
  const Recipe shorter = with("mix_by: rows", "train.max_steps=3");
  EXPECT_EQ(shorter.train.max_steps, 3);
  EXPECT_EQ(shorter.train.epochs, 0);
  EXPECT_TRUE(with("eval_fraction: 0.1", "data.eval=[{path: e.jsonl}]").data.eval_fraction == 0);
  EXPECT_TRUE(with("eval: [{path: e.jsonl}]", "data.eval_fraction=0.1").data.eval.empty());
  EXPECT_TRUE(with("shuffle: false", "data.shuffle_block=100").data.shuffle);
  EXPECT_EQ(with("shuffle_block: 100", "data.shuffle=false").data.shuffle_block, 0);
  EXPECT_EQ(parse(std::string(kSmall) + "optim: {warmup_steps: 5}\n", {"optim.warmup_ratio=0.1"})
                .optim.warmup_steps,
            0);
}

TEST(RecipeYaml, AnOverrideThatDoesNothingTakesNoKeysPlace) {
  for (const char* nothing : {"train.epochs=0", "train.epochs=0.0"}) {
    const Recipe recipe = parse(kSmall, {nothing});
    EXPECT_EQ(recipe.train.max_steps, 3) << nothing;
    EXPECT_THAT(recipe.left_out, IsEmpty()) << nothing;
  }
  const std::string blocks =
      "model: {path: m}\noutput: {dir: run}\ntrain: {epochs: 2}\n"
      "data: {train: [{path: rows.jsonl}], shuffle_block: 100}\n";
  EXPECT_EQ(parse(blocks, {"data.shuffle=true"}).data.shuffle_block, 100);
  EXPECT_EQ(parse(blocks, {"train.max_steps=0"}).train.epochs, 2);
}

TEST(RecipeYaml, RunsMustHaveOneLength) {
  EXPECT_THAT(refusal(kSmall, {"train.epochs=1", "train.max_steps=3"}),
              HasSubstr("exclude each other"));
  const std::string both =
      std::string(kSmall).replace(std::string(kSmall).find("3}"), 1, "3, epochs: 1");
  EXPECT_THAT(refusal(both), HasSubstr("exclude each other"));
  EXPECT_THAT(refusal(kSmall, {"train.max_steps=0"}), HasSubstr("how long"));
}

TEST(RecipeYaml, CountsThatCannotBeMeantAreRefused) {
  EXPECT_THAT(refusal(kSmall, {"train.threads=100000"}),
              HasSubstr("train.threads must be at most 1024, found 100000"));
  EXPECT_EQ(parse(kSmall, {"train.threads=1024"}).train.threads, 1024);
  EXPECT_THAT(refusal(kSmall, {"train.gradient_accumulation_steps=1048577"}),
              HasSubstr("train.gradient_accumulation_steps must be at most 1048576"));
  const std::string length = "data.sequence_length=65536";
  EXPECT_THAT(refusal(kSmall, {length, "train.micro_batch_size=32768"}),
              HasSubstr("train.micro_batch_size: 32768 rows of data.sequence_length 65536"));
  EXPECT_THAT(refusal(kSmall, {length, "train.micro_batch_size=9223372036854775807"}),
              HasSubstr("set it to at most 16383"));
  EXPECT_EQ(parse(kSmall, {length, "train.micro_batch_size=16383"}).train.micro_batch_size, 16383);
  EXPECT_THAT(refusal(kSmall, {length, "train.micro_batch_size=16384"}),
              HasSubstr("train.micro_batch_size: 16384 rows"));
  EXPECT_THAT(refusal(kSmall, {"data.sequence_length=99999999999"}),
              AllOf(HasSubstr("data.sequence_length must be at most 1073741823, found 99999999999"),
                    Not(HasSubstr("train.micro_batch_size"))));
}

TEST(RecipeYaml, AWordOfResumeInOtherLettersIsNoCheckpoint) {
  for (const std::string found : {"Auto", "NEVER"})
    EXPECT_THAT(refusal(kSmall, {"train.resume=" + found}),
                HasSubstr("train.resume must be auto, never or a checkpoint's path, found '" +
                          found + "'; write " + (found == "Auto" ? "auto" : "never")));
  EXPECT_THAT(parse(kSmall, {"train.resume=./Auto"}).train.resume, ::testing::EndsWith("/Auto"));
}

TEST(RecipeYaml, AnEmptyFileAndAListAreNoRecipes) {
  EXPECT_THAT(refusal(""), HasSubstr("model.path is missing"));
  EXPECT_THAT(refusal("- a\n"), HasSubstr("map of sections"));
  EXPECT_THAT(refusal("model: {path: m\n"), HasSubstr("not valid YAML"));
}

TEST(RecipeYaml, DifferencesAreSortedByWhetherARunMayChangeThem) {
  const Recipe before = parse(kSmall);
  const Recipe now = parse(kSmall, {"lora.rank=8", "train.save_every=5"});
  EXPECT_THAT(fixed_differences(before, now), ElementsAre("lora.rank: 16 -> 8"));
  EXPECT_THAT(free_differences(before, now), ElementsAre(HasSubstr("train.save_every: 0 -> 5")));
}

TEST(RecipeYaml, ASectionTellsAllOfItsFaults) {
  const std::string told = refusal(
      kSmall, {"optim.lr=-1", "optim.power=0", "optim.warmup_ratio=3", "lora.rank=0",
               "lora.alpha=0", "lora.alpha_pattern={q_proj: -2}", "data.sequence_length=0",
               "data.mix_by=lines", "train.save_every=-1", "train.log_every=-2", "model.dtype=int4",
               "model.upcast=some", "quantization.method=nf5", "quantization.block_size=33"});
  for (const char* sentence :
       {"optim.lr must be", "optim.power must be", "optim.warmup_ratio must be",
        "lora.rank must be", "lora.alpha must be", "lora.alpha_pattern.q_proj must be",
        "data.sequence_length must be", "data.mix_by must be", "train.save_every must be",
        "train.log_every must be", "model.dtype must be", "model.upcast must be",
        "quantization.method must be", "quantization.block_size must be"})
    EXPECT_THAT(told, HasSubstr(sentence));
}

TEST(RecipeYaml, WithoutRowsToTrainOnThoseToEvaluateOnAreOfAnyFormat) {
  for (const char* train : {"", "train: [], "})
    for (const char* format : {"preference", "completion"}) {
      const std::string told =
          refusal(fmt::format("model: {{path: m}}\n"
                              "data: {{{}eval: [{{path: a.jsonl, format: {}}}]}}\n"
                              "train: {{max_steps: 1}}\n"
                              "output: {{dir: run}}\n",
                              train, format));
      EXPECT_THAT(told, AllOf(HasSubstr("data.train"), Not(HasSubstr("data.eval")))) << train;
    }
}

TEST(RecipeYaml, OneFaultOfTrainedTokensIsToldOnce) {
  const std::string told = refusal(kSmall, {"lora.trainable_token_indices={embed_tokens: 5}"});
  EXPECT_THAT(told, HasSubstr("lora.trainable_token_indices.embed_tokens must be a list"));
  EXPECT_THAT(told, testing::Not(HasSubstr("must name at least one token")));
}

TEST(Problems, AKeyIsNamedByItsWholeNameOrByWhatLiesInIt) {
  ProblemList problems("r.yaml");
  problems.covered("lora.alpha");
  problems.covered("data.train");
  problems.covered("model");
  EXPECT_TRUE(problems.names_covered_key("lora.alpha must be positive"));
  EXPECT_TRUE(problems.names_covered_key("set it, or lora.alpha."));
  EXPECT_TRUE(problems.names_covered_key("data.train[0].path must name a file"));
  EXPECT_TRUE(problems.names_covered_key("model.dtype must be"));
  EXPECT_FALSE(problems.names_covered_key("lora.alpha_pattern: 'a' matches no module"));
  EXPECT_FALSE(problems.names_covered_key("data.train_on: dpo compares answers"));
  EXPECT_FALSE(problems.names_covered_key("quantization.method: of the model"));
}

TEST(RecipeDifferences, ADtypeThatIsLeftOpenIsTheOneTheRunBeganWith) {
  Recipe before, now;
  before.model.dtype = "bfloat16";  // as older versions wrote where nothing was said
  EXPECT_THAT(fixed_differences(before, now), IsEmpty());
  now.model.dtype = "float32";
  EXPECT_THAT(fixed_differences(before, now), ElementsAre("model.dtype: bfloat16 -> float32"));
}

TEST(RecipeDifferences, TheOrderOfPatternsIsOneWhereItMatters) {
  Recipe before, now;
  before.lora.rank_pattern = {{"q_proj", 4}, {"v_proj", 2}};
  now.lora.rank_pattern = {{"v_proj", 2}, {"q_proj", 4}};
  EXPECT_THAT(fixed_differences(before, now), IsEmpty());
  before.lora.rank_pattern = {{"down_proj", 4}, {"mlp.down_proj", 2}};
  now.lora.rank_pattern = {{"mlp.down_proj", 2}, {"down_proj", 4}};
  EXPECT_THAT(fixed_differences(before, now),
              ElementsAre("lora.rank_pattern: {down_proj: 4, mlp.down_proj: 2} -> {mlp.down_proj: "
                          "2, down_proj: 4}"));
  now = before;
  before.optim.weight_decay_pattern = {{"lora_A", 0.1}, {"layers.0", 0.5}};
  now.optim.weight_decay_pattern = {{"layers.0", 0.5}, {"lora_A", 0.1}};
  EXPECT_THAT(fixed_differences(before, now),
              ElementsAre(HasSubstr("optim.weight_decay_pattern: {lora_A")));
}

TEST(RecipeYaml, PatternsKeepTheOrderOfTheRecipe) {
  const Recipe recipe = parse_recipe(
      kSmall, "r.yaml", "", {"lora.rank_pattern={layers.1.mlp.down_proj: 8, down_proj: 2}"});
  EXPECT_EQ(recipe.lora.of_module("model.layers.1.mlp.down_proj").rank, 8);
  EXPECT_THAT(write_recipe(recipe),
              HasSubstr("rank_pattern: {layers.1.mlp.down_proj: 8, down_proj: 2}"));
}

TEST(RecipeYaml, TheReferencePageIsUpToDate) {
  EXPECT_EQ(test::read_file(QLORA_SOURCE_DIR "/docs/recipes.md"), reference_page())
      << "run: build/bin/qlora reference > docs/recipes.md";
}

TEST(RecipeYaml, TheReferencePageAndTheFormatsNameEveryBuiltInChatTemplate) {
  const std::string formats = test::read_file(QLORA_SOURCE_DIR "/docs/formats.md");
  for (const std::string& name : data::builtin_chat_template_names()) {
    EXPECT_THAT(reference_page(), HasSubstr("`" + name + "`"));
    EXPECT_THAT(formats, HasSubstr("`" + name + "`"));
  }
}

TEST(RecipeYaml, TheReferencePageSaysThatTheSectionQuantizationNeedsAMethod) {
  EXPECT_THAT(reference_page(),
              HasSubstr("| required; `as_stored` in a recipe without this section |"));
}

TEST(RecipeYaml, TheQuickstartIsAValidRecipe) {
  const Recipe recipe = read_recipe(QLORA_SOURCE_DIR "/recipes/quickstart.yaml");
  EXPECT_EQ(recipe.quantization.method, "nf4");
  EXPECT_TRUE(recipe.quantization.double_quant);
}

}  // namespace
}  // namespace qlora::recipes
