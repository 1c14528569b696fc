// The directory of a run that is changed, and exports of it, killed at every system call on the
// way.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "recipes/exports/export_model.h"
#include "recipes/exports/quantize_model.h"
#include "recipes/models/trained_model.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run_files/run_adapter.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/run_files/run_names.h"
#include "tests/support/killed_work.h"
#include "tests/support/temp_dir.h"
#include "tests/support/two_step_run.h"
#include "trainer/checkpoint.h"
#include "trainer/metrics.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using test::TempDir;

class AKillAtAnyCall : public test::TwoStepRun {};

// Whole under one of the places where it may be.
bool is_whole_in_one_of(const std::vector<std::string>& places,
                        const std::map<std::string, std::string>& files) {
  return std::ranges::any_of(places, [&](const std::string& place) {
    return fs::exists(place) && std::ranges::all_of(files, [&](const auto& file) {
             return test::read_file(place + file.first) == file.second;
           });
  });
}

// The bytes of every file by its path within `directory`.
std::map<std::string, std::string> files_of(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory))
    if (entry.is_regular_file())
      files[entry.path().string().substr(directory.size())] = test::read_file(entry.path());
  return files;
}

TEST_F(AKillAtAnyCall, WhileARunGoesBackLosesNothing) {
  train();
  const std::string trained = dir / "trained", run = recipe.output.dir;
  fs::rename(run, trained);
  const std::vector<std::string> parts = {"/checkpoint-000001", "/checkpoint-000002", "/adapter"};
  const std::string metrics = test::read_file(trained + "/metrics.jsonl");
  const std::string first_lines = metrics.substr(0, metrics.find("{\"step\":2"));
  recipe.train.resume = run + "/checkpoint-000001";
  const auto kills = test::kill_at_each_call(
      [&] {
        fs::remove_all(run);
        fs::copy(trained, run, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
      },
      [&] {
        const RunDirectory directory(recipe);
        directory.begin(recipe, 1);
        EXPECT_TRUE(trainer::point_best_at(run, 1));
        const trainer::MetricsLog log(run + "/metrics.jsonl", 1);
      },
      [&] {
        for (const std::string& part : parts) {
          const std::vector<std::string> places = {run + part, run + "/set-aside-1" + part};
          EXPECT_TRUE(is_whole_in_one_of(places, files_of(trained + part))) << part;
        }
        EXPECT_TRUE(test::read_file(run + "/metrics.jsonl").starts_with(first_lines));
        EXPECT_TRUE(RunDirectory(recipe).checkpoint().has_value());
      });
  EXPECT_GE(kills, 20);
}

TEST_F(AKillAtAnyCall, WhileARunIsReplacedLeavesADirectoryThatCanBeReplaced) {
  train();
  const std::string trained = dir / "trained", run = recipe.output.dir;
  fs::rename(run, trained);
  recipe.output.overwrite = true;
  test::kill_at_each_call(
      [&] {
        fs::remove_all(run);
        fs::copy(trained, run, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
      },
      [&] { RunDirectory(recipe).begin(recipe, 0); },
      [&] {
        for (const int64_t step : trainer::checkpoint_steps(run))
          EXPECT_NO_THROW(trainer::verify_checkpoint(run + "/" + trainer::checkpoint_name(step)));
        EXPECT_NO_THROW(RunDirectory(recipe).begin(recipe, 0));
      });
}

// What a start without --overwrite makes of it: the new run never goes on from what the old one
// had saved, and is never taken for finished by its adapter.
TEST_F(AKillAtAnyCall, WhileARunIsReplacedLeavesTheOldOneWholeOrNothingThatCounts) {
  train();
  const std::string trained = dir / "trained", run = recipe.output.dir;
  fs::rename(run, trained);
  Recipe replacing = recipe;
  replacing.output.overwrite = true;
  int64_t old = 0, cut = 0;
  const auto kills = test::kill_at_each_call(
      [&] {
        fs::remove_all(run);
        fs::copy(trained, run, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
      },
      [&] { RunDirectory(replacing).begin(replacing, 0); },
      [&] {
        const RunDirectory next(recipe);
        if (next.finished()) {
          ++old;
          for (const std::string part : {"/checkpoint-000001", "/checkpoint-000002", "/adapter"})
            EXPECT_EQ(files_of(run + part), files_of(trained + part)) << part;
          return;
        }
        ++cut;
        EXPECT_FALSE(next.checkpoint().has_value());
        EXPECT_THROW(adapter_of_run(run), ConfigError);
        next.begin(recipe, 0);
        EXPECT_FALSE(fs::exists(run + "/adapter"));
        EXPECT_TRUE(trainer::checkpoint_steps(run).empty());
        EXPECT_FALSE(is_being_replaced(run));
      });
  EXPECT_GE(kills, 12);
  EXPECT_GE(old, 1);
  EXPECT_GE(cut, 10);
}

// The export is there as a whole or not at all, and one that is made after it is what it would have
// been.
TEST_F(AKillAtAnyCall, WhileAnExportIsWrittenLeavesTheWholeOrNothing) {
  recipe.train.threads = 1;
  train();
  ModelChoice choice;
  choice.run_dir = recipe.output.dir;
  choice.threads = 1;
  TrainedModel trained = open_model(choice);
  for (const std::string format : {"adapter", "merged", "gguf", "gguf-lora"}) {
    SCOPED_TRACE(format);
    const std::string whole = dir / ("whole-" + format), out = dir / "out", target = out + "/it";
    export_model(trained, {.format = format, .output = whole});
    const auto files = files_of(whole);
    const auto kills = test::kill_at_each_call(
        [&] { fs::remove_all(out); },
        [&] { export_model(trained, {.format = format, .output = target}); },
        [&] {
          if (fs::exists(target)) {
            EXPECT_EQ(files_of(target), files);
            return;
          }
          export_model(trained, {.format = format, .output = target});
          EXPECT_EQ(files_of(target), files);
          EXPECT_EQ(std::distance(fs::directory_iterator(out), fs::directory_iterator()), 1)
              << "something of the killed one is left";
        });
    EXPECT_GE(kills, 15);
  }
}

TEST_F(AKillAtAnyCall, WhileAQuantizedModelIsWrittenLeavesTheWholeOrNothing) {
  const std::string out = dir / "out", whole = dir / "whole";
  QuantizeOptions options;
  options.model = recipe.model.path;
  options.quantization.method = "nf4";
  options.device = "cpu";
  options.threads = 1;
  const auto quantize_to = [&](const std::string& output) {
    options.output = output;
    quantize_model(options);
  };
  quantize_to(whole);
  const auto files = files_of(whole);
  const auto kills =
      test::kill_at_each_call([&] { fs::remove_all(out); }, [&] { quantize_to(out + "/it"); },
                              [&] {
                                if (!fs::exists(out + "/it")) quantize_to(out + "/it");
                                EXPECT_EQ(files_of(out + "/it"), files);
                              });
  EXPECT_GE(kills, 15);
}

}  // namespace
}  // namespace qlora::recipes
