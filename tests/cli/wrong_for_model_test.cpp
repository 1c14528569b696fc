// What a recipe asks of a model that its kind does not have, told from its header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cli/program.h"
#include "tests/support/small_models.h"
#include "tests/support/small_t5.h"

namespace qlora::test {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(WrongForModel, TrainedInputsOfAnEncoder) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  write_small_t5(dir / "t5", 64);
  recipe.model.path = dir / "t5";
  recipe.data.train = {
      {dir.write("pairs.jsonl", R"({"input": "say", "output": "yes"})"), "input_output", {}}};
  recipe.data.eval = {};
  const Finished done =
      run_qlora(dir, {"train", write_recipe_file(dir, recipe), "--set", "data.train_on=all"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_THAT(done.err, HasSubstr("--set data.train_on=all: data.train_on: the encoder reads"));
}

TEST(WrongForModel, DropoutDoraAndTrainingWholeOfExperts) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  write_made_directory(dir / "experts", R"({
    "model_type": "mixtral", "vocab_size": 258, "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_local_experts": 2, "num_experts_per_tok": 1, "max_position_embeddings": 128})");
  recipe.model.path = dir / "experts";
  recipe.lora.targets = {"all-linear"};
  const Finished done =
      run_qlora(dir, {"train", write_recipe_file(dir, recipe), "--set", "lora.dropout=0.1", "--set",
                      "lora.use_dora=true", "--set", "lora.modules_to_save=[gate]"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_THAT(done.err,
              AllOf(HasSubstr("--set lora.dropout=0.1: lora.dropout: adapters of experts"),
                    HasSubstr("--set lora.use_dora=true: lora.use_dora: adapters of experts"),
                    HasSubstr("is an expert or a router, which is not trained whole"),
                    Not(HasSubstr("examples"))));
}

TEST(WrongForModel, TokensByTheirTextAreToldOfTheKeyThatNamesThem) {
  TempDir dir;
  const std::string path = write_recipe_file(dir, tiny_recipe(dir.path()));
  std::string text = read_file(path);
  const std::string other = "  trainable_token_indices: []\n";
  ASSERT_NE(text.find(other), std::string::npos);
  dir.write("recipe.yaml", text.erase(text.find(other), other.size()));
  const Finished done = run_qlora(dir, {"train", path, "--set", "lora.trainable_tokens=[a]",
                                        "--set", "lora.modules_to_save=[embed_tokens]"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_THAT(done.err, AllOf(HasSubstr("--set lora.trainable_tokens=[a]: lora.trainable_tokens: "
                                        "lora.modules_to_save trains all tokens"),
                              Not(HasSubstr("trainable_token_indices"))));
}

// Which the optimizer itself finds when all rows are tokenized.
TEST(WrongForModel, FewerResidentBytesThanTwoPagesOfTheOptimizer) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  for (const std::string command : {"train", "plan"}) {
    const Finished done = run_qlora(dir, {command, recipe, "--set", "optim.name=paged_adamw",
                                          "--set", "optim.paged_resident_bytes=1000"});
    EXPECT_EQ(done.exit_code, 2);
    EXPECT_THAT(done.err, AllOf(HasSubstr("--set optim.paged_resident_bytes=1000: "
                                          "optim.paged_resident_bytes must be 0 or at least "),
                                Not(HasSubstr("examples"))));
  }
  EXPECT_EQ(run_qlora(dir, {"plan", recipe, "--no-time", "--set", "optim.name=adamw", "--set",
                            "optim.paged_resident_bytes=1000"})
                .exit_code,
            0);
}

}  // namespace
}  // namespace qlora::test
