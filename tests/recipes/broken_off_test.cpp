#include "recipes/run/broken_off.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/temp_dir.h"
#include "tests/support/two_step_run.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(BrokenOff, ADivergedRunIsNoRunToResumeButOneToBeginAnotherFrom) {
  const test::TempDir dir;
  fs::create_directory(dir / "my run");
  EXPECT_EQ(way_out_of_divergence(dir / "my run"),
            "No checkpoint is saved; train another run from the start");
  for (const char* name : {"checkpoint-000010", "checkpoint-000020"})
    fs::create_directory(dir / (std::string("my run/") + name));
  EXPECT_EQ(way_out_of_divergence(dir / "my run"),
            "A resumed run repeats the same steps. Train another one from the start, or from a "
            "checkpoint before the loss rose (checkpoint-000010, checkpoint-000020): qlora train "
            "'" +
                dir / "my run/recipe.resolved.yaml" +
                "' --set output.dir=/NEW_DIR --set "
                "optim.lr=LOWER --set lora.from_adapter='" +
                dir / "my run/checkpoint-000010/adapter" + "'");
}

class ARefusal : public test::TwoStepRun {};

TEST_F(ARefusal, OfTheDiskIsToldWithTheStepThatIsSaved) {
  train();
  fs::remove(dir / "run/checkpoint-000002/MANIFEST.json");  // not whole
  EXPECT_EQ(way_on_after_refusal(dir / "run"),
            "The run is saved after step 1; once that is mended, go on with: qlora resume " +
                dir / "run");
  for (const char* name : {"run/checkpoint-000001", "run/checkpoint-000002"})
    fs::remove_all(dir / name);
  EXPECT_THAT(way_on_after_refusal(dir / "run"),
              HasSubstr("No step is saved; once that is mended, the run begins anew with: qlora "
                        "resume "));
}

}  // namespace
}  // namespace qlora::recipes
