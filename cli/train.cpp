#include "cli/train.h"

#include <memory>
#include <string>
#include <vector>

#include "cli/stop_signal.h"
#include "distributed/place.h"
#include "recipes/qlora_finetune.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/yaml/recipe_yaml.h"

namespace {

using qlora::recipes::Recipe;

struct TrainArguments {
  std::string recipe, resume;
  std::vector<std::string> overrides;
  bool overwrite = false;
  int profile_steps = 0;
};

void run(const Recipe& recipe) {
  const bool speaks = qlora::distributed::place_from_environment().rank == 0;
  const auto outcome = qlora::recipes::finetune(recipe, qlora::cli::watch_stop_signals(speaks));
  if (outcome == qlora::trainer::Outcome::kInterrupted) throw qlora::cli::Interrupted();
}

void train(TrainArguments arguments) {
  if (!arguments.resume.empty()) arguments.overrides.push_back("train.resume=" + arguments.resume);
  if (arguments.profile_steps > 0)
    arguments.overrides.push_back("train.profile_steps=" + std::to_string(arguments.profile_steps));
  if (arguments.overwrite) arguments.overrides.emplace_back("output.overwrite=true");
  Recipe recipe = qlora::recipes::read_recipe(arguments.recipe, arguments.overrides);
  recipe.output.begins_anew = arguments.overwrite;
  run(recipe);
}

struct ResumeArguments {
  std::string run_dir, from;
};

void resume(const ResumeArguments& arguments) {
  Recipe recipe = qlora::recipes::read_run_recipe(arguments.run_dir);
  recipe.train.resume = arguments.from.empty() ? "auto" : arguments.from;
  recipe.output.overwrite = false;
  run(recipe);
}

}  // namespace

void add_train_command(qlora::cli::Command app) {
  auto arguments = std::make_shared<TrainArguments>();
  qlora::cli::Command command = app.add_subcommand(
      "train", "Fine-tune as a recipe says; an interrupted run of the same recipe goes on");
  command.add_option("RECIPE", arguments->recipe, "YAML file; docs/recipes.md lists its keys")
      .required();
  command.add_option("--set", arguments->overrides,
                     "key=value that replaces one of the recipe, e.g. optim.lr=1e-4");
  command.add_option("--resume", arguments->resume, "auto, never, or a checkpoint directory");
  command
      .add_option("--profile", arguments->profile_steps,
                  "Print where the time of this many steps goes, and write a Chrome trace")
      .not_negative();
  command.add_flag("--overwrite", arguments->overwrite,
                   "Begin anew: replace the run in output.dir, whatever it is");
  command.callback([arguments] { train(*arguments); });
}

void add_resume_command(qlora::cli::Command app) {
  auto arguments = std::make_shared<ResumeArguments>();
  qlora::cli::Command command = app.add_subcommand("resume", "Go on with an interrupted run");
  command.add_option("RUN_DIR", arguments->run_dir, "Directory of the run").required();
  command.add_option("--from,--checkpoint", arguments->from,
                     "A checkpoint of the run, e.g. checkpoint-000040 or best, instead of the last "
                     "whole one; what the run holds of later steps is set aside");
  command.callback([arguments] { resume(*arguments); });
}
