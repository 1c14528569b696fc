#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(LongRows, TheFirstBeyondTheModelsPositionsIsNamedWithItsLength) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 1;
  const std::string path = write_recipe_file(dir, recipe);
  EXPECT_THAT(run_qlora(dir, {"train", path}).err, Not(HasSubstr("max_position_embeddings")));
  json config = json::parse(read_file(dir / "model/config.json"));
  config["max_position_embeddings"] = 20;
  dir.write("model/config.json", config.dump());
  const Finished again = run_qlora(dir, {"train", path, "--overwrite"});
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_THAT(again.err, AllOf(HasSubstr("rows.jsonl:1: the row has"),
                               HasSubstr("max_position_embeddings of the model is 20")));
}

}  // namespace
}  // namespace qlora::test
