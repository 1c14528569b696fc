// Where commands refuse to write, before they work for it.
#include "recipes/output_place.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "recipes/exports/quantize_model.h"
#include "recipes/report/page.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class OutputPlaces : public testing::Test {
 protected:
  OutputPlaces() { dir.write("run/recipe.resolved.yaml", ""); }

  test::TempDir dir;
};

TEST_F(OutputPlaces, TheNamesOfARunAreRefusedWithinIt) {
  fs::create_directories(dir / "run/checkpoint-000004");
  fs::create_directory_symlink(dir / "run/checkpoint-000004", dir / "link");
  fs::create_directory_symlink(dir / "elsewhere", dir / "run/base");
  for (const std::string& path :
       {dir / "run/adapter", dir / "run/adapter/", dir / "run/base", dir / "run/base/x",
        dir / "run/checkpoint-000004/merged", dir / "run/checkpoint-000123",
        dir / "run/set-aside-1", dir / "run/x/../best", dir / "link/merged",
        dir / "run/recipe.replacing.yaml", dir / "run/log.txt/x", dir / "run/.lock"}) {
    const auto names_it = ThrowsMessage<ConfigError>(
        AllOf(HasSubstr("--output: " + path), HasSubstr("the run in " + (dir / "run"))));
    EXPECT_THAT([&] { require_output_directory("--output", path); }, names_it) << path;
  }
  EXPECT_THAT([&] { require_output_file("--html", dir / "run/metrics.jsonl"); },
              ThrowsMessage<ConfigError>(HasSubstr("a name that the run in")));
}

TEST_F(OutputPlaces, OtherNamesThereAndTheseNamesElsewhereAreFree) {
  for (const std::string& path :
       {dir / "run/exported", dir / "run/checkpoint-merged", dir / "run/adapter-for-vllm",
        dir / "adapter", dir / "new/base", dir / "run/mine/adapter"})
    EXPECT_NO_THROW(require_output_directory("--output", path)) << path;
  EXPECT_NO_THROW(require_output_file("--html", dir / "run/page.html"));
}

TEST_F(OutputPlaces, AnEmptyNameAndOneTooLongAreRefused) {
  constexpr size_t kMark = 36;  // ".before-replacement-0123456789abcdef"
  const std::string fits(255 - kMark, 'n'), no_partial(255 - kMark + 1, 'n'), too_long(256, 'n');
  for (const std::string& path : {std::string(), dir / no_partial, dir / (too_long + "/x")}) {
    EXPECT_THAT([&] { require_output_directory("--output", path); },
                ThrowsMessage<ConfigError>(testing::StartsWith("--output")))
        << path;
    EXPECT_THROW(require_output_file("--output", path), ConfigError) << path;
  }
  EXPECT_NO_THROW(require_output_directory("--output", dir / fits));
  EXPECT_NO_THROW(require_output_directory("--output", dir / (std::string(255, 'n') + "/x")));
}

TEST_F(OutputPlaces, WhatLiesBelowAFileOrForAFileInNoFolderIsRefused) {
  const std::string file = dir.write("file", "x");
  EXPECT_THAT([&] { require_output_directory("--output", file + "/a/b"); },
              ThrowsMessage<ConfigError>(HasSubstr(file + " must be a directory, but is a file")));
  EXPECT_THAT([&] { require_output_file("--html", dir / "none/page.html"); },
              ThrowsMessage<ConfigError>(HasSubstr("there is no folder " + (dir / "none"))));
  EXPECT_THROW(require_output_file("--html", dir / "page.html/"), ConfigError);
}

TEST_F(OutputPlaces, CommandsAskBeforeTheyReadTheModel) {
  QuantizeOptions options;
  options.model = dir / "no-model";
  options.quantization.method = "nf4";
  options.output = dir / "run/base";
  const auto names_the_output = ThrowsMessage<ConfigError>(HasSubstr("--output: "));
  EXPECT_THAT([&] { quantize_model(options); }, names_the_output);
  EXPECT_THAT([&] { dequantize_model(options.model, options.output, "auto"); }, names_the_output);
  EXPECT_THAT([&] { require_page_file(dir / "run/samples.jsonl"); },
              ThrowsMessage<ConfigError>(HasSubstr("--html: ")));
}

}  // namespace
}  // namespace qlora::recipes
