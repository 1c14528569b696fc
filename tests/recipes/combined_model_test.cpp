// Several adapters opened as one model, as `qlora export --combine` does.
#include "recipes/models/combined_model.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/seed.h"
#include "recipes/exports/export_model.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
using ::testing::HasSubstr;

class CombinedModel : public ::testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_directory(dir / "model");
    write_adapter("one", 4, 1);
    write_adapter("two", 2, 2);
  }
  ModelChoice choice(const std::string& adapter = "") const {
    ModelChoice chosen;
    chosen.model = dir / "model";
    chosen.adapter = adapter;
    chosen.device = "cpu";
    chosen.threads = 2;
    chosen.compute_dtype = "float32";
    return chosen;
  }
  void write_adapter(const std::string& name, int64_t rank, uint64_t seed) const {
    TrainedModel trained = open_model(choice());
    trained.recipe.lora.rank = rank;
    trained.adapters = std::make_unique<lora::AdapterSet>(
        trained.recipe.lora, trained.base.model->groups(), at::kFloat, seed);
    for (const lora::AdapterTensor& tensor : trained.adapters->tensors()) {
      at::Tensor value = tensor.value;
      const uint64_t key = random_key(seed, tensor.name);
      for (int64_t i = 0; i < value.numel(); ++i)
        value.data_ptr<float>()[i] = 0.05f * normal(key, static_cast<uint64_t>(i));
    }
    trained.adapters->publish();
    export_model(trained, {"adapter", dir / name, "float32"});
  }
  TrainedModel open(const std::string& method, std::vector<double> weights) const {
    lora::CombineOptions options;
    options.method = method;
    options.weights = std::move(weights);
    return open_combined_model(choice(dir / "one"), {dir / "one", dir / "two"}, options);
  }
  static at::Tensor delta(const TrainedModel& trained, size_t group) {
    const lora::Adapter& adapter =
        *trained.base.model->groups().at(group)->layers().front().adapter;
    return adapter.b.mm(adapter.a) * adapter.scaling;
  }

  const test::TempDir dir;
};

TEST_F(CombinedModel, ByCatItIsTheWeightedSumAndAnOrdinaryAdapterOnDisk) {
  TrainedModel combined = open("cat", {0.7, -0.3});
  export_model(combined, {"adapter", dir / "sum", "float32"});
  const TrainedModel one = open_model(choice(dir / "one")), two = open_model(choice(dir / "two")),
                     read = open_model(choice(dir / "sum"));
  EXPECT_EQ(read.recipe.lora.rank, 6);
  for (size_t group = 0; group < one.base.model->groups().size(); ++group) {
    const at::Tensor expected = delta(one, group) * 0.7 + delta(two, group) * -0.3;
    // Sums of six products of some 1e-2 in fp32.
    EXPECT_TRUE(at::allclose(delta(read, group), expected, 1e-5, 1e-7)) << group;
  }
  ExportOptions merged{"merged", dir / "merged", "float32"};
  EXPECT_LT(export_model(combined, merged).kl_mean, 1e-6);
}

TEST_F(CombinedModel, OtherRanksAreNamed) {
  try {
    open("linear", {1, 1});
    FAIL() << "combined";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr(dir / "two"));
  }
}

void change(const std::string& path, const std::string& key, const std::string& value) {
  auto json = nlohmann::json::parse(test::read_file(path));
  json[key] = value;
  std::ofstream(path) << json.dump();
}

TEST_F(CombinedModel, EachAdapterMustBelongToTheBase) {
  change(dir / "two/qlora_base.json", "base_hash", "another");
  EXPECT_THROW(open("cat", {1, 1}), ConfigError);
}

TEST_F(CombinedModel, APartOfTheBaseIsNotWeighted) {
  change(dir / "two/qlora_base.json", "init", "pissa");
  try {
    open("cat", {1, 1});
    FAIL() << "combined";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("pissa"));
  }
}

}  // namespace
}  // namespace qlora::recipes
