// The README of an adapter that a run and an export write.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cli/program.h"

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
  for (const char* place : {"run/adapter/README.md", "out/README.md"}) {
    const std::string card = read_file(dir / place);
    EXPECT_THAT(card, AllOf(HasSubstr("bnb_4bit_quant_type=\"nf4\""),
                            HasSubstr("`rows.jsonl` (chat)"), HasSubstr("`eval.jsonl` (chat)"),
                            HasSubstr("| optim.lr, schedule | 0.005"), HasSubstr("6 steps"),
                            HasSubstr("on the rows held out"), Not(HasSubstr(dir.path()))))
        << place;
  }
}

}  // namespace
}  // namespace qlora::test
