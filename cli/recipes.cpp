#include "cli/recipes.h"

#include <fmt/format.h>

#include <memory>

#include "base/error.h"
#include "base/terminal.h"
#include "io/atomic_write.h"
#include "recipes/output_place.h"
#include "recipes/ready_recipes.h"

namespace {

struct RecipesArguments {
  std::string name, output;
  bool writes = false;
};

void list() {
  constexpr size_t kColumn = 21;
  const size_t width = qlora::terminal_width(stdout);
  for (const auto& recipe : qlora::recipes::ready_recipes())
    fmt::print("{}", qlora::list_line(recipe.name, recipe.summary(), kColumn, width));
  fmt::print("\nCopy one with: qlora recipes NAME --output recipe.yaml\n");
}

void run(const RecipesArguments& arguments) {
  if (arguments.name.empty()) {
    if (arguments.writes)
      throw qlora::ConfigError("--output goes with the name of a recipe: qlora recipes NAME");
    return list();
  }
  const auto& recipe = qlora::recipes::ready_recipe(arguments.name);
  if (!arguments.writes) {
    fmt::print("{}", recipe.text);
    return;
  }
  qlora::recipes::require_output_file("--output", arguments.output);
  qlora::io::write_new_file(arguments.output, recipe.text);
  fmt::print("written to {}; edit it, then: qlora train {}\n", arguments.output, arguments.output);
}

}  // namespace

void add_recipes_command(qlora::cli::Command app) {
  auto arguments = std::make_shared<RecipesArguments>();
  qlora::cli::Command command =
      app.add_subcommand("recipes", "List the ready recipes, or copy one");
  command.add_option("name", arguments->name, "A recipe of the list");
  const qlora::cli::Option output = command.add_option(
      "--output", arguments->output, "File to write; without it, to the terminal");
  command.callback([arguments, output] {
    arguments->writes = output.is_given();
    run(*arguments);
  });
}
