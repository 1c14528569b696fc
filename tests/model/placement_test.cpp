#include "model/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/byte_size.h"
#include "base/error.h"
#include "tests/support/tiny_model.h"

namespace qlora::model {
namespace {
using quant::Home;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Map = std::map<std::string, std::string>;

Placement placement(const Map& device_map, c10::Device device = at::kCPU,
                    bool float32_on_cpu = false, bool tied = true) {
  ModelOptions options;
  options.device_map = device_map;
  Architecture architecture = test::tiny_model()->architecture();
  architecture.tied_embeddings = tied;
  return placement_of(options, architecture, device, float32_on_cpu);
}

std::vector<Home> placed(const Map& device_map, c10::Device device = at::kCPU) {
  return placement(device_map, device).layers;
}

void expect_refused(const Map& device_map, const std::string& word, c10::Device device = at::kCPU) {
  EXPECT_THAT([&] { placed(device_map, device); },
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("model.device_map"), HasSubstr(word))));
}

TEST(Placement, WithoutAMapAllBlocksStayOnTheDevice) {
  EXPECT_TRUE(placed({}).empty());
  EXPECT_FALSE(Placement().elsewhere());
  EXPECT_EQ(Placement().of(7), Home::kDevice);
}

TEST(Placement, TheLongestModuleThatHoldsABlockCounts) {
  EXPECT_THAT(placed({{"", "disk"}}), ElementsAre(Home::kDisk, Home::kDisk));
  EXPECT_THAT(placed({{"model.layers.1", "disk"}}), ElementsAre(Home::kDevice, Home::kDisk));
  EXPECT_THAT(placed({{"", "disk"}, {"model.layers.0", "cpu"}}),
              ElementsAre(Home::kDevice, Home::kDisk));
  EXPECT_THAT(placed({{"model", "cpu"}, {"model.layers", "disk"}, {"lm_head", "cpu"}}),
              ElementsAre(Home::kDisk, Home::kDisk));
}

TEST(Placement, HostMemoryIsAPlaceOfItsOwnForAGpuAlone) {
  const c10::Device gpu("cuda:1");
  EXPECT_THAT(placed({{"", "cpu"}}), ElementsAre(Home::kDevice, Home::kDevice));
  EXPECT_THAT(placed({{"", "cpu"}}, gpu), ElementsAre(Home::kHost, Home::kHost));
  EXPECT_THAT(placed({{"", "cuda:1"}, {"model.layers.0", "cpu"}}, gpu),
              ElementsAre(Home::kHost, Home::kDevice));
  EXPECT_THAT(placed({{"", "1"}, {"model.layers.0", "disk"}}, gpu),
              ElementsAre(Home::kDisk, Home::kDevice));
  expect_refused({{"", "cuda:0"}}, "the device is cuda:1", gpu);
}

TEST(Placement, RanksAreAPlaceOfBlocksOnEveryDevice) {
  for (const c10::Device device : {c10::Device(at::kCPU), c10::Device("cuda:1")}) {
    const Placement all = placement({{"", "ranks"}}, device);
    EXPECT_THAT(all.layers, ElementsAre(Home::kRanks, Home::kRanks));
    EXPECT_EQ(all.embedding, Home::kDevice);
    EXPECT_EQ(all.head, Home::kDevice);
    EXPECT_TRUE(all.elsewhere());
    EXPECT_TRUE(all.on_ranks());
    EXPECT_FALSE(all.on_disk());
    EXPECT_EQ(all.to_text(), "0 of 2 blocks on the device, 2 shared between the ranks");
    EXPECT_FALSE(all.for_one_rank().elsewhere());
  }
  const Placement some = placement({{"model.layers.1", "ranks"}, {"", "disk"}});
  EXPECT_THAT(some.layers, ElementsAre(Home::kDisk, Home::kRanks));
  EXPECT_THAT(some.for_one_rank().layers, ElementsAre(Home::kDisk, Home::kDevice));
  expect_refused({{"lm_head", "ranks"}}, "every rank has embedding and head whole");
  expect_refused({{"model.norm", "ranks"}}, "stay on train.device");
}

TEST(Placement, ModulesThatAreNotThereOrCannotMoveAreNamed) {
  expect_refused({{"model.layers.2", "disk"}}, "no such module");
  expect_refused({{"model.layer", "disk"}}, "model.layers.0 to model.layers.1");
  expect_refused({{"model.layers.0.mlp", "disk"}}, "as a whole");
  expect_refused({{"model.norm", "disk"}}, "stay on train.device");
  expect_refused({{"lm_head", "disk"}, {"model.embed_tokens", "cuda:0"}}, "one matrix with");
}

TEST(Placement, EmbeddingAndHeadMoveByTheirOwnNamesAlone) {
  const Placement all = placement({{"", "disk"}, {"model", "disk"}});
  EXPECT_EQ(all.embedding, Home::kDevice);
  EXPECT_EQ(all.head, Home::kDevice);
  const c10::Device gpu("cuda:0");
  const Placement both =
      placement({{"lm_head", "disk"}, {"model.embed_tokens", "cpu"}}, gpu, false, false);
  EXPECT_EQ(both.embedding, Home::kHost);
  EXPECT_EQ(both.head, Home::kDisk);
  EXPECT_TRUE(both.elsewhere());
  EXPECT_TRUE(both.on_disk());
  EXPECT_EQ(both.count(Home::kDevice), 2);
  EXPECT_EQ(both.to_text(),
            "2 of 2 blocks on the device, the embedding in host memory, the head on disk");
  const Placement on_cpu = placement({{"lm_head", "cpu"}}, at::kCPU, false, false);
  EXPECT_EQ(on_cpu.head, Home::kDevice);
  EXPECT_FALSE(on_cpu.elsewhere());
}

TEST(Placement, OfTiedEmbeddingsOneNameMovesTheOneMatrix) {
  for (const char* name : {"lm_head", "model.embed_tokens"}) {
    const Placement tied = placement({{name, "disk"}});
    EXPECT_EQ(tied.embedding, Home::kDisk) << name;
    EXPECT_EQ(tied.head, Home::kDisk) << name;
  }
}

TEST(Placement, BlocksOfTheCpuAndOfTheDiskStayInFloat32WhateverTheDevice) {
  const Map map = {{"", "cuda:0"}, {"model.layers.0", "cpu"}};
  for (const c10::Device device : {c10::Device(at::kCPU), c10::Device("cuda:0")}) {
    const Placement some = placement(map, device, true);
    EXPECT_THAT(some.float32, ElementsAre(true, false));
    EXPECT_THAT(float32_modules(some, test::tiny_model()->architecture()),
                ElementsAre("model.layers.0"));
    EXPECT_THAT(placement({{"model.layers", "disk"}}, device, true).float32,
                ElementsAre(true, true));
    EXPECT_TRUE(placement(map, device).float32.empty());
  }
  EXPECT_EQ(placement(map, at::kCPU, true).to_text(),
            "2 of 2 blocks on the device, 1 blocks in float32");
}

TEST(Placement, TheOptionsSayWhatPlacesAndSizesThereAre) {
  const auto expect = [](const Map& device_map, const Map& max_memory, const std::string& word) {
    ModelOptions options;
    options.path = "m";
    options.device_map = device_map;
    options.max_memory = max_memory;
    if (word.empty())
      options.validate();
    else
      EXPECT_THAT([&] { options.validate(); }, ThrowsMessage<ConfigError>(HasSubstr(word)));
  };
  expect({{"", "auto"}}, {{"cuda:0", "20GiB"}, {"cpu", "30 GB"}, {"1", "4000000000"}}, "");
  expect({{"", "disk"}, {"model.layers.3", "0"}}, {}, "");
  expect({{"", "balanced"}}, {}, "must be auto, cpu, disk, ranks or the device");
  expect({{"model.layers", "auto"}}, {}, "model.device_map.model.layers must be cpu, disk");
  expect({{"", "auto"}, {"model.layers", "cpu"}}, {}, "auto stands for the whole map");
  expect({{"", "auto"}}, {{"gpu", "2GB"}}, "must name cpu or a GPU");
  for (const char* size : {"many", "", "-1GB", "0", "3 parsecs", "1e30GB"})
    expect({{"", "auto"}}, {{"cpu", size}},
           "model.max_memory.cpu must be a size above 0 such as 20GiB (units: KB, MB, GB");
  expect({{"", "disk"}}, {{"cpu", "2GB"}}, "is for model.device_map: auto");
}

TEST(Placement, ARunThatBeginsNamesNoDeviceButItsOwn) {
  const auto message = [](const Map& device_map, const Map& max_memory, c10::Device device,
                          int ranks = 1) -> std::string {
    ModelOptions options;
    options.device_map = device_map;
    options.max_memory = max_memory;
    try {
      require_own_devices(options, device, ranks);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  const Map automatic = {{"", "auto"}};
  const c10::Device cpu = at::kCPU, gpu("cuda:1");
  EXPECT_THAT(message({{"model.layers", "cuda:0"}}, {}, cpu),
              AllOf(HasSubstr("model.device_map.model.layers: the run is on cpu"),
                    HasSubstr("write cpu, disk, ranks, leave it out"),
                    HasSubstr("set train.device to cuda:0")));
  EXPECT_THAT(message({{"", "3"}}, {}, cpu),
              AllOf(HasSubstr("model.device_map: "), HasSubstr("set train.device to cuda:3")));
  EXPECT_THAT(message({{"", "cuda"}}, {}, gpu), HasSubstr("write cpu, disk, ranks, cuda:1"));
  EXPECT_THAT(message(automatic, {{"cuda:0", "1GB"}}, cpu),
              AllOf(HasSubstr("model.max_memory.cuda:0: the run is on cpu"),
                    HasSubstr("write {cpu: 1GB}")));
  EXPECT_THAT(message(automatic, {{"0", "1GB"}}, gpu), HasSubstr("write {cuda:1: 1GB}"));
  EXPECT_EQ(message(automatic, {{"0", "1GB"}}, gpu, /*ranks=*/2), "");
  EXPECT_EQ(message(automatic, {{"0", "1GB"}, {"1", "2GB"}, {"cpu", "3GB"}}, gpu), "");
  EXPECT_EQ(message({{"", "1"}, {"lm_head", "cpu"}, {"model.layers.0", "disk"}}, {}, gpu), "");
  EXPECT_EQ(message({{"", "ranks"}, {"model.layers.0", "cpu"}}, {}, cpu), "");
}

TEST(Placement, SizesAreReadWithTheirUnits) {
  EXPECT_EQ(byte_size("20GiB"), int64_t{20} << 30);
  EXPECT_EQ(byte_size("1.5 MiB"), 3 << 19);
  EXPECT_EQ(byte_size("800 MB"), 800'000'000);
  EXPECT_EQ(byte_size("4096"), 4096);
  EXPECT_EQ(byte_size("GB"), std::nullopt);
  ModelOptions options;
  options.max_memory = {{"cuda", "1GB"}, {"cpu", "2GB"}};
  EXPECT_EQ(memory_limit(options, c10::Device("cuda:0")), 1'000'000'000);
  EXPECT_EQ(memory_limit(options, at::kCPU), 2'000'000'000);
  EXPECT_EQ(memory_limit(options, c10::Device("cuda:1")), std::nullopt);
}

}  // namespace
}  // namespace qlora::model
