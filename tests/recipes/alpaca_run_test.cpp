// data.prompt_style: alpaca: what was trained is how the adapter and its exports speak.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/chat_renderer.h"
#include "recipes/exports/export_model.h"
#include "recipes/models/trained_model.h"
#include "recipes/qlora_finetune.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {

const std::atomic<bool> kNever{false};

// A run of two steps on rows in Alpaca's words. The base has ChatML, or no template at all.
Recipe alpaca_recipe(const test::TempDir& dir, bool base_has_template) {
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.train.max_steps = 2;
  recipe.data.eval.clear();
  recipe.data.sequence_length = 512;
  recipe.data.prompt_style = "alpaca";
  recipe.data.train = {{dir.write("alpaca.jsonl", R"({"instruction": "q", "output": "a"})"
                                                  "\n"
                                                  R"({"instruction": "r", "output": "b"})"
                                                  "\n"),
                        "alpaca",
                        {}}};
  if (base_has_template) return recipe;
  const std::string path = dir / "model/tokenizer_config.json";
  nlohmann::json config = nlohmann::json::parse(test::read_file(path));
  config.erase("chat_template");
  std::ofstream(path) << config.dump();
  return recipe;
}

TEST(AlpacaRun, ItsAdapterItsExportAndItsAnswersSpeakAsItWasTrained) {
  const std::string expected = data::builtin_chat_template("alpaca");
  for (const bool base_has_template : {true, false}) {
    const test::TempDir dir;
    const Recipe recipe = alpaca_recipe(dir, base_has_template);
    finetune(recipe, kNever);
    EXPECT_EQ(test::read_file(dir / "run/adapter/chat_template.jinja"), expected);
    ModelChoice of_run, of_adapter;
    of_run.run_dir = dir / "run";
    of_adapter.model = recipe.model.path;
    of_adapter.adapter = dir / "run/adapter";
    of_run.device = of_adapter.device = "cpu";
    TrainedModel trained = open_model(of_run);
    ASSERT_NE(trained.base.chat_template, nullptr);
    EXPECT_EQ(trained.base.chat_template->source(), expected);
    EXPECT_EQ(open_model(of_adapter).base.chat_template->source(), expected);
    export_model(trained, {.format = "merged", .output = dir / "merged"});
    EXPECT_EQ(test::read_file(dir / "merged/chat_template.jinja"), expected);
  }
}

}  // namespace
}  // namespace qlora::recipes
