#include "cli/reference.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "recipes/reference_page.h"

void add_reference_command(CLI::App& app) {
  app.add_subcommand("reference", "The keys of a recipe, as Markdown")->callback([] {
    std::cout << qlora::recipes::reference_page();
  });
}
