// `qlora` as a user starts it, on the tiny model.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::test {

// Runs to its end in `dir`.
inline Finished run_qlora(const TempDir& dir, const std::vector<std::string>& arguments) {
  return ChildProcess(QLORA_PROGRAM, arguments, dir.path()).wait();
}

// Lines of the run's metrics.jsonl in `dir`: steps, and evaluations.
inline int64_t steps_logged(const TempDir& dir, const std::string& run) {
  const std::string text = read_file(dir / (run + "/metrics.jsonl"));
  return std::count(text.begin(), text.end(), '\n');
}

// The tiny recipe as a file, its model and rows beside it.
inline std::string write_recipe_file(const TempDir& dir, const recipes::Recipe& recipe) {
  return dir.write("recipe.yaml", recipes::write_recipe(recipe));
}

}  // namespace qlora::test
