#include "cli/recipes.h"

#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "base/error.h"
#include "io/atomic_write.h"
#include "recipes/ready_recipes.h"

namespace {

struct RecipesArguments {
  std::string name, output;
};

void list() {
  for (const auto& recipe : qlora::recipes::ready_recipes())
    fmt::print("{:<20} {}\n", recipe.name, recipe.summary());
  fmt::print("\nCopy one with: qlora recipes NAME --output recipe.yaml\n");
}

void run(const RecipesArguments& arguments) {
  if (arguments.name.empty()) {
    if (!arguments.output.empty())
      throw qlora::ConfigError("--output goes with the name of a recipe: qlora recipes NAME");
    return list();
  }
  const auto& recipe = qlora::recipes::ready_recipe(arguments.name);
  if (arguments.output.empty()) {
    fmt::print("{}", recipe.text);
    return;
  }
  if (std::filesystem::exists(arguments.output))
    qlora::fail<qlora::ConfigError>("{} exists; name another file", arguments.output);
  qlora::io::write_file_atomically(arguments.output, recipe.text);
  fmt::print("written to {}; edit it, then: qlora train {}\n", arguments.output, arguments.output);
}

}  // namespace

void add_recipes_command(qlora::cli::Command app) {
  auto arguments = std::make_shared<RecipesArguments>();
  qlora::cli::Command command =
      app.add_subcommand("recipes", "List the ready recipes, or copy one");
  command.add_option("name", arguments->name, "A recipe of the list");
  command.add_option("--output", arguments->output, "File to write; without it, to the terminal");
  command.callback([arguments] { run(*arguments); });
}
