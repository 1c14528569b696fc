#include "data/trained_prompts.h"

#include <gtest/gtest.h>

namespace qlora::data {
namespace {

DataOptions of(const std::vector<DatasetOptions>& train) {
  DataOptions options;
  options.train = train;
  return options;
}

DatasetOptions dataset_of(const std::string& format) {
  DatasetOptions dataset;
  dataset.format = format;
  return dataset;
}

DatasetOptions completion(const std::string& separator) {
  DatasetOptions dataset = dataset_of("completion");
  dataset.separator = separator;
  return dataset;
}

DatasetOptions chat(const std::string& system) {
  DatasetOptions dataset = dataset_of("chat");
  dataset.system = system;
  return dataset;
}

TEST(TrainedPrompts, AreRawWhereAllDataSetsAreOfCompletions) {
  EXPECT_FALSE(trained_prompts({}).are_raw);
  EXPECT_TRUE(trained_prompts(of({completion(" ")})).are_raw);
  EXPECT_FALSE(trained_prompts(of({completion(" "), chat("")})).are_raw);
  // Texts may bring a template of their own.
  EXPECT_FALSE(trained_prompts(of({dataset_of("text")})).are_raw);
}

TEST(TrainedPrompts, SeparatorAndSystemMessageAreThoseOfAllDataSetsOrNone) {
  EXPECT_EQ(trained_prompts(of({completion("\n"), completion("\n")})).separator, "\n");
  EXPECT_EQ(trained_prompts(of({completion("\n"), completion(" ")})).separator, "");
  EXPECT_EQ(trained_prompts(of({chat("Be brief."), chat("Be brief.")})).system, "Be brief.");
  EXPECT_EQ(trained_prompts(of({chat("Be brief."), chat("")})).system, "");
}

}  // namespace
}  // namespace qlora::data
