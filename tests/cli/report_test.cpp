// `qlora report` and `qlora inspect data --html`: the page holds what the run's files say, and
// texts of a run stay texts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "recipes/run_files/run_names.h"
#include "tests/cli/program.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kHostile = "</script><script>alert(1)</script><!--<img src=x>&amp;{{data}}";

// What stands between the tags of the page's data.
std::string data_text(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const size_t begin = page.find(open) + open.size();
  return page.substr(begin, page.find("</script>", begin) - begin);
}

json page_data(const TempDir& dir, const std::vector<std::string>& arguments) {
  const Finished done = run_qlora(dir, arguments);
  EXPECT_EQ(done.exit_code, 0) << done.err;
  return json::parse(data_text(read_file(dir / "page.html")));
}

json report_of(const TempDir& dir, const std::string& run) {
  return page_data(dir, {"report", dir / run, "--html", dir / "page.html"})["runs"][0];
}

recipes::Recipe short_recipe(const TempDir& dir) {
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.max_steps = 4;
  recipe.train.eval_every = 2;
  return recipe;
}

void train(const TempDir& dir, const recipes::Recipe& recipe) {
  const Finished done = run_qlora(dir, {"train", write_recipe_file(dir, recipe)});
  ASSERT_EQ(done.exit_code, 0) << done.err;
}

TEST(Report, ThePageHoldsTheNumbersOfTheMetrics) {
  TempDir dir;
  train(dir, short_recipe(dir));
  const json run = report_of(dir, "run");
  std::istringstream lines(read_file(dir / "run/metrics.jsonl"));
  size_t steps = 0, evaluations = 0;
  for (std::string line; std::getline(lines, line);) {
    const json metrics = json::parse(line);
    const bool evaluates = metrics.contains("eval_loss");
    for (const auto& [key, value] : metrics.items())
      EXPECT_EQ(run[evaluates ? "evaluations" : "steps"][key][evaluates ? evaluations : steps],
                value)
          << key;
    ++(evaluates ? evaluations : steps);
  }
  EXPECT_EQ(steps, 4U);
  EXPECT_EQ(run["steps"]["loss"].size(), steps);
  EXPECT_EQ(run["evaluations"]["eval_loss"].size(), evaluations);
  EXPECT_TRUE(run["finished"].get<bool>());
  EXPECT_EQ(run["recipe"], read_file(dir / "run/recipe.resolved.yaml"));
  EXPECT_EQ(run["memory"]["measured_bytes"],
            json::parse(read_file(dir / "run/memory.json"))["measured_bytes"]);
  EXPECT_GT(run["memory"]["lines"].size(), 3U);
}

TEST(Report, RowsAreShownAsTheyAreTrained) {
  TempDir dir;
  train(dir, short_recipe(dir));
  const json rows = report_of(dir, "run")["rows"];
  ASSERT_EQ(rows.size(), 6U);  // three of each dataset
  std::string trained;
  for (const json& span : rows[0]["spans"])
    if (span[0].get<bool>()) trained += span[1].get<std::string>();
  EXPECT_THAT(trained, HasSubstr("0?"));
  EXPECT_THAT(trained, Not(HasSubstr("say")));
  fs::remove(dir / "rows.jsonl");
  const json run = report_of(dir, "run");
  EXPECT_EQ(run["rows"].size(), 3U);
  EXPECT_THAT(run["rows_note"].get<std::string>(), HasSubstr("rows.jsonl"));
}

TEST(Report, HostileTextStaysText) {
  TempDir dir;
  recipes::Recipe recipe = short_recipe(dir);
  const json row = {{"messages",
                     {{{"role", "user"}, {"content", kHostile}},
                      {{"role", "assistant"}, {"content", kHostile}}}}};
  dir.write("rows.jsonl", row.dump() + "\n" + row.dump() + "\n");
  recipe.data.sequence_length = 256;
  recipe.train.sample_prompts = {kHostile};
  train(dir, recipe);
  const json run = report_of(dir, "run");
  const std::string page = read_file(dir / "page.html");
  EXPECT_THAT(data_text(page), AllOf(Not(HasSubstr("<")), Not(HasSubstr(">"))));
  EXPECT_EQ(page.find("alert(1)</script>"), std::string::npos);
  EXPECT_THAT(page, AllOf(Not(HasSubstr("http://localhost")), Not(HasSubstr("src=\""))));
  EXPECT_EQ(run["samples"][0]["prompt"], kHostile);
  std::string text;
  for (const json& span : run["rows"][0]["spans"]) text += span[1].get<std::string>();
  EXPECT_THAT(text, HasSubstr(kHostile));
}

TEST(Report, ARunThatWasCutOffHasAPageAndSaysSo) {
  TempDir dir;
  recipes::Recipe recipe = short_recipe(dir);
  recipe.data.eval.clear();
  recipe.train.eval_every = 0;
  train(dir, recipe);
  fs::remove_all(dir / "run/adapter");
  const std::string metrics = read_file(dir / "run/metrics.jsonl");
  dir.write("run/metrics.jsonl", metrics.substr(0, metrics.size() - 30));
  const json run = report_of(dir, "run");
  EXPECT_FALSE(run["finished"].get<bool>());
  EXPECT_THAT(run["status"].get<std::string>(), HasSubstr("not finished: 3 steps of 4"));
  EXPECT_EQ(run["steps"]["step"].size(), 3U);
  EXPECT_TRUE(run["evaluations"].empty());
  for (const char* name :
       {"metrics.jsonl", "log.txt", "memory.json", "checkpoint-000002", "checkpoint-000004"})
    fs::remove_all(dir / (std::string("run/") + name));
  const json bare = report_of(dir, "run");
  EXPECT_THAT(bare["status"].get<std::string>(), HasSubstr("not finished: 0 steps"));
  EXPECT_TRUE(bare["memory"].is_null());
}

TEST(Report, OfARunThatIsBeingReplacedNothingOfTheOldOneIsShown) {
  TempDir dir;
  recipes::Recipe recipe = short_recipe(dir);
  recipe.train.sample_prompts = {"one"};
  train(dir, recipe);
  ASSERT_FALSE(report_of(dir, "run")["samples"].empty());
  recipe.optim.lr = 1e-3;
  const std::string replacing = recipes::write_recipe(recipe);
  dir.write(std::string("run/") + recipes::kReplacingRecipe, replacing);
  const json run = report_of(dir, "run");
  EXPECT_FALSE(run["finished"].get<bool>());
  EXPECT_THAT(run["status"].get<std::string>(), HasSubstr("not finished: 0 steps,"));
  for (const char* key : {"steps", "evaluations", "memory", "samples", "checks"})
    EXPECT_TRUE(run[key].empty()) << key;
  EXPECT_EQ(run["recipe"], replacing);
}

TEST(Report, SeveralRunsAreComparedAndTheirDifferencesNamed) {
  TempDir dir;
  recipes::Recipe recipe = short_recipe(dir);
  train(dir, recipe);
  recipe.optim.lr = 1e-3;
  recipe.output.dir = dir / "other";
  train(dir, recipe);
  const json data =
      page_data(dir, {"report", dir / "run", dir / "other", "--html", dir / "page.html"});
  ASSERT_EQ(data["runs"].size(), 2U);
  EXPECT_EQ(data["runs"][1]["name"], "other");
  ASSERT_EQ(data["differences"].size(), 1U) << data["differences"];
  EXPECT_EQ(data["differences"][0][0], "optim.lr");
}

TEST(Report, TheTerminalGetsASummary) {
  TempDir dir;
  train(dir, short_recipe(dir));
  const Finished done = run_qlora(dir, {"report", dir / "run"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.out, AllOf(HasSubstr("finished: 4 steps"), HasSubstr("evaluation loss"),
                              HasSubstr("the same in adapter, checkpoint-000002"),
                              HasSubstr("MB predicted"), HasSubstr("--html")));
  const Finished none = run_qlora(dir, {"report", dir / "model"});
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_THAT(none.err, HasSubstr("is no run"));
}

TEST(Report, TheVerificationOfAnExportIsShown) {
  TempDir dir;
  train(dir, short_recipe(dir));
  ASSERT_EQ(run_qlora(dir, {"export", dir / "run", "--format", "merged", "--output", dir / "out"})
                .exit_code,
            0);
  const Finished done = run_qlora(dir, {"report", dir / "run", "--export", dir / "out"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.out, AllOf(HasSubstr("top-1 agreement"), HasSubstr("dequantized")));
  const Finished none = run_qlora(dir, {"report", dir / "run", "--export", dir / "model"});
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_THAT(none.err, HasSubstr("verification.json"));
}

TEST(Report, InspectDataWritesThePageOfItsRows) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, short_recipe(dir));
  const json data =
      page_data(dir, {"inspect", "data", recipe, "--rows", "2", "--html", dir / "page.html"});
  EXPECT_EQ(data["kind"], "data");
  EXPECT_EQ(data["rows"].size(), 4U);
  EXPECT_THAT(data["reports"][0][1].get<std::string>(), HasSubstr("23 rows"));
}

TEST(Report, ReplacesPagesAndNothingElse) {
  TempDir dir;
  const recipes::Recipe recipe = short_recipe(dir);
  train(dir, recipe);
  const std::string file = write_recipe_file(dir, recipe);
  for (const std::string name : {"run/metrics.jsonl", "run/adapter/adapter_model.safetensors"}) {
    const std::string before = read_file(dir / name);
    for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
             {"report", dir / "run"}, {"inspect", "data", file}}) {
      std::vector<std::string> arguments = command;
      arguments.insert(arguments.end(), {"--html", dir / name});
      const Finished done = run_qlora(dir, arguments);
      EXPECT_EQ(done.exit_code, 2);
      EXPECT_THAT(done.err, HasSubstr(name + " exists and is no page of this program"));
    }
    EXPECT_EQ(read_file(dir / name), before);
  }
  const json once = report_of(dir, "run");
  EXPECT_EQ(report_of(dir, "run"), once);
}

}  // namespace
}  // namespace qlora::test
