#include "recipes/models/model_dtype.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>

#include "model/load.h"
#include "recipes/models/trained_model.h"
#include "recipes/plan/plan.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run_files/run_directory.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "trainer/memory_plan.h"

namespace qlora::recipes {
namespace {

using test::TempDir;

// All of its large matrices lie in Q8_0.
std::string blocks_alone(const TempDir& dir) {
  const std::string path = dir / "blocks.gguf";
  test::write_made_gguf(path, R"({
    "model_type": "llama", "vocab_size": 258, "hidden_size": 64, "intermediate_size": 96,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2})");
  return path;
}

std::string resolved(const std::string& path, const std::string& dtype,
                     const std::string& compute_dtype) {
  Recipe recipe;
  recipe.model.path = path;
  recipe.model.dtype = dtype;
  recipe.train.compute_dtype = compute_dtype;
  const model::ModelHeader header = model::read_model_header(path);
  const std::string name = resolved_model_dtype(recipe, header);
  if (header.weights) {
    EXPECT_EQ(resolved_model_dtype(recipe, *header.weights), name);
  }
  return name;
}

TEST(ModelDtype, BlocksAloneAreReadInFloat32WhereFloat32ProductsWereAskedFor) {
  const TempDir dir;
  const std::string blocks = blocks_alone(dir);
  EXPECT_EQ(resolved(blocks, "auto", "float32"), "float32");
  for (const char* compute : {"auto", "bfloat16", "float16"})
    EXPECT_EQ(resolved(blocks, "auto", compute), "bfloat16") << compute;
  for (const char* dtype : {"bfloat16", "float16", "float32"})
    EXPECT_EQ(resolved(blocks, dtype, "float32"), dtype);
  test::write_tiny_directory(dir / "model");  // in bfloat16
  for (const std::string& path : {dir / "model", dir / "model/config.json"})
    EXPECT_EQ(resolved(path, "auto", "float32"), "bfloat16") << path;
  test::write_tiny_gguf(dir / "numbers.gguf");  // in float32
  EXPECT_EQ(resolved(dir / "numbers.gguf", "auto", "bfloat16"), "float32");
}

TEST(ModelDtype, SuchAModelHasTheNumbersOfItsBlocks) {
  const TempDir dir;
  ModelChoice choice;
  choice.model = blocks_alone(dir);
  choice.device = "cpu";
  const auto embedding = [&](const std::string& compute_dtype) {
    choice.compute_dtype = compute_dtype;
    const TrainedModel opened = open_base(choice);
    const at::Tensor& weight = opened.base.model->embedding.weight;
    EXPECT_EQ(weight.scalar_type() == at::kFloat, opened.base.record.dtype == "float32");
    return weight.to(at::kFloat);
  };
  const at::Tensor exact = embedding("float32"), rounded = embedding("bfloat16");
  EXPECT_FALSE(exact.equal(rounded)) << "numbers of Q8_0 that bfloat16 does not hold";
  EXPECT_TRUE(exact.to(at::kBFloat16).to(at::kFloat).equal(rounded));
}

TEST(ModelDtype, ThePlanCountsIt) {
  const TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.model.path = blocks_alone(dir);
  recipe.train.compute_dtype = "float32";
  const model::ModelHeader header = model::read_model_header(recipe.model.path);
  for (const char* method : {"as_stored", "none"}) {
    recipe.quantization = {};
    recipe.quantization.method = method;
    recipe.model.dtype = "auto";
    const auto planned = [&] {
      return trainer::plan_memory(planned_run(recipe, header, false)).peak();
    };
    const int64_t in_float32 = planned();
    const BaseModel base = load_base(recipe, at::kCPU);
    const auto loaded = planned_run(recipe, *base.model, recipe.data.sequence_length);
    EXPECT_EQ(in_float32, trainer::plan_memory(loaded).peak()) << method;
    recipe.model.dtype = "float32";
    EXPECT_EQ(planned(), in_float32) << method;
    recipe.model.dtype = "bfloat16";
    EXPECT_LT(planned(), in_float32) << method;
  }
}

TEST(ModelDtype, ARunKeepsWhatItBeganWith) {
  const TempDir dir;
  Recipe recipe = test::tiny_recipe(dir.path());
  recipe.model.path = blocks_alone(dir);
  recipe.quantization = {};
  const std::string text = R"({"text": "some words"})";
  recipe.data.train = {{dir.write("text.jsonl", text + "\n" + text + "\n"), "text", {}}};
  recipe.data.eval.clear();
  recipe.train.max_steps = 1;
  for (const auto& [compute_dtype, dtype] :
       {std::pair{"bfloat16", "bfloat16"}, {"float32", "float32"}}) {
    recipe.train.compute_dtype = compute_dtype;
    recipe.output.dir = dir / compute_dtype;
    finetune(recipe, std::atomic<bool>(false));
    EXPECT_EQ(read_run_recipe(recipe.output.dir).model.dtype, dtype);
    ModelChoice choice;
    choice.run_dir = recipe.output.dir;
    choice.device = "cpu";
    for (const char* other : {"bfloat16", "float32"}) {
      choice.compute_dtype = other;
      EXPECT_EQ(open_model(choice).base.record.dtype, dtype) << other;
    }
  }
}

}  // namespace
}  // namespace qlora::recipes
