// What the scripts beside this file train: the tiny model, rows and a recipe of 150 steps of four
// micro-batches, one thread a process (tests/support/tiny_files.h).
//
//   build/bin/write_tiny_run DIR      # writes DIR/recipe.yaml, which trains into DIR/run
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>

#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/tiny_files.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;

void write_tiny_run(const fs::path& directory) {
  fs::create_directories(directory);
  recipes::Recipe recipe = tiny_recipe(directory.string());
  // Rows are packed in pairs: windows of four, four and three micro-batches.
  write_tiny_rows((directory / "rows.jsonl").string(), 21);
  recipe.data.sequence_length = 64;
  recipe.train.gradient_accumulation_steps = 4;
  recipe.train.threads = 1;
  recipe.train.max_steps = 150;
  recipe.train.eval_every = recipe.train.save_every = 50;
  std::ofstream(directory / "recipe.yaml") << recipes::write_recipe(recipe);
}

}  // namespace
}  // namespace qlora::test

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("write_tiny_run DIR\n", stderr);
    return 2;
  }
  try {
    qlora::test::write_tiny_run(std::filesystem::absolute(argv[1]));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "write_tiny_run: %s\n", error.what());
    return 1;
  }
}
