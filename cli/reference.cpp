#include "cli/reference.h"

#include <fmt/format.h>

#include "recipes/fields/reference_page.h"

void add_reference_command(qlora::cli::Command app) {
  app.add_subcommand("reference", "The keys of a recipe, as Markdown").callback([] {
    fmt::print("{}", qlora::recipes::reference_page());
  });
}
