// The README of an adapter that a run and an export write.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "lora/adapter_file.h"
#include "recipes/models/compute_dtype.h"
#include "tests/cli/program.h"
#include "tests/support/small_t5.h"

namespace qlora::test {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(ModelCard, OfARunAndOfItsExportHasBaseDataSettingsAndFiguresAndNoPath) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  ASSERT_EQ(run_qlora(dir, {"train", recipe}).exit_code, 0);
  const Finished exported =
      run_qlora(dir, {"export", dir / "run", "--format", "adapter", "--output", dir / "out"});
  ASSERT_EQ(exported.exit_code, 0) << exported.err;
  const std::string of_run = read_file(dir / "run/adapter/README.md");
  EXPECT_THAT(of_run, HasSubstr("| lora.targets | all-linear |"));
  const size_t data = of_run.find("\n## Data\n");
  ASSERT_NE(data, std::string::npos);
  EXPECT_TRUE(read_file(dir / "out/README.md").ends_with(of_run.substr(data)));
  for (const char* place : {"run/adapter/README.md", "out/README.md"}) {
    const std::string card = read_file(dir / place);
    EXPECT_THAT(card,
                AllOf(HasSubstr("bnb_4bit_quant_type=\"nf4\""), HasSubstr("`rows.jsonl` (chat)"),
                      HasSubstr("`eval.jsonl` (chat)"), HasSubstr("| optim.lr, schedule | 0.005"),
                      HasSubstr("The training took 6 steps, which are "),
                      HasSubstr("; on the rows held out it was "), Not(HasSubstr(dir.path()))))
        << place;
  }
}

TEST(ModelCard, OfACheckpointHasTheFiguresUpToItsStepAndTheTemplateOfTheRun) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.data.chat_template = "chatml";
  ASSERT_EQ(run_qlora(dir, {"train", write_recipe_file(dir, recipe)}).exit_code, 0);
  const Finished exported =
      run_qlora(dir, {"export", dir / "run", "--checkpoint", "checkpoint-000004", "--format",
                      "adapter", "--output", dir / "out"});
  ASSERT_EQ(exported.exit_code, 0) << exported.err;
  EXPECT_EQ(read_file(dir / "out/adapter_model.safetensors"),
            read_file(dir / "run/checkpoint-000004/adapter/adapter_model.safetensors"));
  EXPECT_EQ(read_file(dir / "out/chat_template.jinja"),
            read_file(dir / "run/adapter/chat_template.jinja"));
  EXPECT_THAT(read_file(dir / "out/README.md"),
              AllOf(HasSubstr("The training took 4 steps, which are "),
                    Not(HasSubstr("; on the rows held out it was "))));
}

TEST(ModelCard, OfAnAdapterOnAModelNamesWhatItWasMadeFromAndNoPath) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  for (const char* run : {"one", "two"}) {
    recipe.output.dir = dir / run;
    ASSERT_EQ(run_qlora(dir, {"train", write_recipe_file(dir, recipe)}).exit_code, 0);
  }
  const Finished alone =
      run_qlora(dir, {"export", "--model", dir / "model", "--adapter", dir / "one/adapter",
                      "--format", "adapter", "--output", dir / "alone"});
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  const std::string original = read_file(dir / "one/adapter/README.md");
  const std::string card = read_file(dir / "alone/README.md");
  EXPECT_THAT(card, AllOf(HasSubstr("\nIt was made from the adapter `one/adapter`.\n\n## Data\n"),
                          HasSubstr("| optim.lr, schedule | 0.005"), HasSubstr("6 steps"),
                          Not(HasSubstr(dir.path()))));
  EXPECT_TRUE(card.ends_with(original.substr(original.find("\n## Data\n"))));
  const Finished both =
      run_qlora(dir, {"export", "--model", dir / "model", "--adapter", dir / "one/adapter",
                      "--adapter", "two/adapter/", "--combine", "linear", "--weights", "0.75,0.25",
                      "--format", "adapter", "--output", dir / "both"});
  ASSERT_EQ(both.exit_code, 0) << both.err;
  EXPECT_THAT(
      read_file(dir / "both/README.md"),
      AllOf(HasSubstr("These adapters were combined by `linear`:\n\n- `one/adapter`, weight 0.75\n"
                      "- `two/adapter`, weight 0.25\n"),
            Not(HasSubstr("## Data")), Not(HasSubstr(dir.path()))));
}

TEST(ModelCard, SaysInWhichTypeTheProductsOfTheTrainingWereNotThoseOfTheExport) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.model.dtype = "bfloat16";
  for (const char* wish : {"float32", "auto"}) {
    recipe.train.compute_dtype = wish;
    recipe.output.dir = dir / wish;
    ASSERT_EQ(run_qlora(dir, {"train", write_recipe_file(dir, recipe)}).exit_code, 0);
    const auto base = lora::read_adapter_base(dir / wish + "/adapter");
    ASSERT_TRUE(base);
    const std::string type = base->compute_dtype, word = wish;
    EXPECT_EQ(type, word == "auto" ? recipes::resolved_compute_dtype(word, c10::kCPU) : word);
    const std::string output = dir / word + "-out";
    const Finished exported = run_qlora(dir, {"export", dir / wish, "--compute-dtype", "float16",
                                              "--format", "adapter", "--output", output});
    ASSERT_EQ(exported.exit_code, 0) << exported.err;
    const auto says = [&](const std::string& shown) {
      return AllOf(HasSubstr("bnb_4bit_compute_dtype=torch." + type + ","),
                   HasSubstr("quantization, dtype=torch.bfloat16)"),
                   HasSubstr("| train.compute_dtype | " + shown + " |"));
    };
    for (const std::string& card : {dir / wish + "/adapter", output})
      EXPECT_THAT(read_file(card + "/README.md"), says(word == "auto" ? type + " (auto)" : type));
  }
}

TEST(ModelCard, OfASnapshotInTheHubsCacheNamesTheModelAndItsRevision) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  const std::filesystem::path repository = dir / "hub/models--acme--tiny-stories/snapshots";
  std::filesystem::create_directories(repository);
  std::filesystem::rename(recipe.model.path, repository / "abc123");
  recipe.model.path = repository / "abc123";
  const Finished trained = run_qlora(dir, {"train", write_recipe_file(dir, recipe)});
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_THAT(read_file(dir / "run/adapter/README.md"),
              AllOf(HasSubstr("base_model: acme/tiny-stories\n"),
                    HasSubstr("# A LoRA adapter for acme/tiny-stories\n"),
                    HasSubstr("from_pretrained(\"acme/tiny-stories\", revision=\"abc123\", "),
                    Not(HasSubstr(dir.path()))));
  EXPECT_THAT(read_file(dir / "run/adapter/adapter_config.json"),
              AllOf(HasSubstr("\"base_model_name_or_path\": \"acme/tiny-stories\""),
                    HasSubstr("\"revision\": \"abc123\"")));
}

TEST(ModelCard, NoFileOfAnExportedAdapterHasAPathAndTheProgramTakesIt) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  ASSERT_EQ(run_qlora(dir, {"train", recipe}).exit_code, 0);
  EXPECT_THAT(read_file(dir / "run/adapter/adapter_config.json"), HasSubstr(dir / "model"));
  const Finished exported =
      run_qlora(dir, {"export", dir / "run", "--format", "adapter", "--output", dir / "out"});
  ASSERT_EQ(exported.exit_code, 0) << exported.err;
  const Finished combined =
      run_qlora(dir, {"export", "--model", dir / "model", "--adapter", dir / "out", "--adapter",
                      dir / "run/adapter", "--combine", "linear", "--weights", "0.5,0.5",
                      "--format", "adapter", "--output", dir / "both"});
  ASSERT_EQ(combined.exit_code, 0) << combined.err;
  for (const char* exports : {"out", "both"}) {
    for (const auto& file : std::filesystem::directory_iterator(dir / exports))
      EXPECT_THAT(read_file(file.path()), Not(HasSubstr(dir.path()))) << file.path();
    EXPECT_THAT(read_file(dir / exports + "/adapter_config.json"),
                HasSubstr("\"base_model_name_or_path\": \"model\""));
    const Finished answered =
        run_qlora(dir, {"generate", "--model", dir / "model", "--adapter", dir / exports,
                        "--prompt", "Hello", "--max-new-tokens", "2"});
    EXPECT_EQ(answered.exit_code, 0) << answered.err;
  }
}

TEST(ModelCard, OfAMergedModelAndOfItsGgufFileHasWhatTheRunsHas) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  ASSERT_EQ(run_qlora(dir, {"train", recipe}).exit_code, 0);
  const std::string of_run = read_file(dir / "run/adapter/README.md");
  for (const std::string format : {"merged", "gguf", "gguf-lora"}) {
    const Finished exported =
        run_qlora(dir, {"export", dir / "run", "--format", format, "--output", dir / format});
    ASSERT_EQ(exported.exit_code, 0) << exported.err;
    const std::string card = read_file(dir / format + "/README.md");
    EXPECT_TRUE(card.ends_with(of_run.substr(of_run.find("\n## Data\n")))) << format;
    EXPECT_THAT(card, AllOf(HasSubstr("The base was quantized for the training: nf4"),
                            Not(HasSubstr(dir.path()))));
  }
  EXPECT_THAT(read_file(dir / "merged/README.md"),
              AllOf(HasSubstr("library_name: transformers\n"), HasSubstr("# model, fine-tuned\n"),
                    HasSubstr("merged into the values that the quantized weights stand for"),
                    HasSubstr("AutoModelForCausalLM.from_pretrained(\"path/to/this/directory\", "
                              "dtype=torch.bfloat16)")));
  const Finished original =
      run_qlora(dir, {"export", dir / "run", "--format", "merged", "--merge-base", "original",
                      "--dtype", "float32", "--output", dir / "original"});
  ASSERT_EQ(original.exit_code, 0) << original.err;
  EXPECT_THAT(read_file(dir / "original/README.md"),
              AllOf(HasSubstr("The model model in float32, with a LoRA adapter"),
                    HasSubstr("merged into the weights as they were before")));
  EXPECT_EQ(run_qlora(dir, {"generate", "--model", dir / "merged", "--prompt", "Hello",
                            "--max-new-tokens", "2"})
                .exit_code,
            0);
}

TEST(ModelCard, OfAModelWithAnEncoderIsForItsClass) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  write_small_t5(dir / "t5", 64);
  std::string rows;
  for (int i = 0; i < 20; ++i)
    rows += "{\"input\": \"say " + std::to_string(i) + "\", \"output\": \"yes\"}\n";
  recipe.model.path = dir / "t5";
  recipe.data.train = {{dir.write("pairs.jsonl", rows), "input_output", {}}};
  recipe.data.eval = {};
  recipe.train.max_steps = 2;
  const Finished trained = run_qlora(dir, {"train", write_recipe_file(dir, recipe)});
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_THAT(read_file(dir / "run/adapter/adapter_config.json"), HasSubstr("SEQ_2_SEQ_LM"));
  EXPECT_THAT(read_file(dir / "run/adapter/README.md"),
              AllOf(HasSubstr("AutoModelForSeq2SeqLM.from_pretrained("),
                    HasSubstr("pipeline_tag: text2text-generation"), Not(HasSubstr("CausalLM"))));
  const Finished combined =
      run_qlora(dir, {"export", "--model", dir / "t5", "--adapter", dir / "run/adapter",
                      "--adapter", dir / "run/adapter", "--combine", "linear", "--weights",
                      "0.5,0.5", "--format", "adapter", "--output", dir / "both"});
  ASSERT_EQ(combined.exit_code, 0) << combined.err;
  EXPECT_THAT(read_file(dir / "both/adapter_config.json"), HasSubstr("SEQ_2_SEQ_LM"));
  EXPECT_THAT(read_file(dir / "both/README.md"), HasSubstr("AutoModelForSeq2SeqLM"));
}

}  // namespace
}  // namespace qlora::test
