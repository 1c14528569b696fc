// qlora import: a file of another tool becomes a recipe that this program reads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

// Over the files of the tiny recipe in `dir`.
std::string write_axolotl_file(const TempDir& dir, const std::string& more = "") {
  tiny_recipe(dir.path());
  return dir.write("axolotl.yml",
                   "base_model: model\nload_in_4bit: true\nadapter: qlora\nlora_r: 8\n"
                   "lora_alpha: 16\nlora_target_linear: true\nsequence_len: 128\n"
                   "datasets: [{path: rows.jsonl, type: chat_template}]\n"
                   "learning_rate: 1e-3\nmax_steps: 2\noutput_dir: run\n" +
                       more);
}

TEST(ImportCommand, WritesARecipeThatIsTrained) {
  TempDir dir;
  const std::string file = write_axolotl_file(dir, "wandb_project: mine\nfsdp: full_shard\n");
  const Finished done = run_qlora(dir, {"import", file, "-o", dir / "imported.yaml"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.err, AllOf(HasSubstr("read as a file of Axolotl"),
                              HasSubstr("fsdp (the processes of torchrun"),
                              HasSubstr("wandb_project (metrics.jsonl")));
  EXPECT_THAT(done.out, HasSubstr("qlora train " + dir / "imported.yaml"));
  const Finished trained =
      run_qlora(dir, {"train", dir / "imported.yaml", "--set", "quantization.block_size=32"});
  EXPECT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_TRUE(std::filesystem::exists(dir / "run/adapter"));
}

TEST(ImportCommand, WithoutAnOutputTheRecipeAloneIsOnTheTerminalsOutput) {
  TempDir dir;
  const Finished done = run_qlora(dir, {"import", write_axolotl_file(dir)});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.out, StartsWith("# Made by `qlora import` of axolotl.yml"));
  const recipes::Recipe recipe = recipes::parse_recipe(done.out, "recipe.yaml", dir.path());
  EXPECT_EQ(recipe.lora.rank, 8);
  EXPECT_EQ(recipe.train.max_steps, 2);
}

TEST(ImportCommand, WhatMustBeFilledInIsToldAndTheRecipeWritten) {
  TempDir dir;
  const std::string file = dir.write("adapter_config.json",
                                     R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8,
                                         "base_model_name_or_path": "org/model"})");
  const Finished done = run_qlora(dir, {"import", file, "--output", dir / "imported.yaml"});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_THAT(done.err, AllOf(HasSubstr("to fill in before it can be trained:"),
                              HasSubstr("data.train: the rows to train on"),
                              HasSubstr("error: the recipe cannot be trained yet")));
  EXPECT_THAT(read_file(dir / "imported.yaml"), HasSubstr("  rank: 4  # r\n"));
}

TEST(ImportCommand, NoFileIsOverwritten) {
  TempDir dir;
  const std::string file = write_axolotl_file(dir), there = dir.write("there.yaml", "mine");
  const Finished done = run_qlora(dir, {"import", file, "-o", there});
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_THAT(done.err, HasSubstr("exists; name another file"));
  EXPECT_EQ(read_file(there), "mine");
  EXPECT_EQ(run_qlora(dir, {"import", dir / "absent.yml"}).exit_code, 2);
}

}  // namespace
}  // namespace qlora::test
