#include "cli/import.h"

#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "base/error.h"
#include "io/atomic_write.h"
#include "io/replaceable.h"
#include "recipes/import/import_recipe.h"
#include "recipes/output_place.h"

namespace {

struct ImportArguments {
  std::string file, from, output;
  bool writes = false;
};

void run(const ImportArguments& arguments) {
  if (arguments.writes) {
    qlora::recipes::require_output_file("--output", arguments.output);
    qlora::io::require_new(arguments.output);
  }
  const auto imported = qlora::recipes::import_recipe(arguments.file, arguments.from);
  // As the log's lines, it may be lost.
  std::fputs(qlora::recipes::to_text(imported).c_str(), stderr);
  if (arguments.writes)
    qlora::io::write_new_file(arguments.output, imported.text);
  else
    fmt::print("{}", imported.text);
  if (!imported.missing.empty())
    throw qlora::ConfigError(
        "the recipe cannot be trained yet; its commented lines and the list above say what is "
        "missing");
  if (arguments.writes)
    fmt::print("written to {}; read it, then: qlora train {}\n", arguments.output,
               arguments.output);
}

}  // namespace

void add_import_command(qlora::cli::Command app) {
  auto arguments = std::make_shared<ImportArguments>();
  qlora::cli::Command command = app.add_subcommand(
      "import", "Make a recipe of the file of Axolotl, LLaMA-Factory, torchtune, TRL or PEFT");
  command.add_option("FILE", arguments->file, "Their YAML or JSON file, or adapter_config.json")
      .required();
  command
      .add_option("--from", arguments->from,
                  "The tool that the file is of; without it, its keys tell: axolotl, "
                  "llama-factory, torchtune, trl, peft")
      .one_of({"axolotl", "llama-factory", "torchtune", "trl", "peft"});
  const qlora::cli::Option output = command.add_option(
      "--output", arguments->output, "Recipe to write; without it, to the terminal");
  command.callback([arguments, output] {
    arguments->writes = output.is_given();
    run(*arguments);
  });
}
