// The directory of a run: whether it begins, goes on or is done, and that no one else writes to it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "recipes/recipe.h"

namespace qlora::recipes {

class RunDirectory {
 public:
  // Finds out what output.dir holds and takes hold of it; log.txt is all that is written. A run of
  // the same recipe goes on from its last checkpoint, or from the one that train.resume names.
  // ConfigError if the directory holds another run (naming each key that differs), something else,
  // or is in use by another process.
  explicit RunDirectory(const Recipe& recipe);

  // Writes recipe.resolved.yaml, and removes the run that this one replaces: to be called when
  // model and data have been read, so that a mistake in them costs no earlier run.
  void begin(const Recipe& recipe) const;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const;
  // Where to go on from; nothing: from the start.
  const std::optional<std::string>& checkpoint() const { return checkpoint_; }

 private:
  void continue_run(const Recipe& recipe);

  std::string path_;
  std::optional<std::string> checkpoint_;
  bool replaces_a_run_ = false;
  std::shared_ptr<const void> lock_;  // held as long as this lives
};

// The recipe of a run by its directory; ConfigError if that holds no run. Its output.dir is the
// directory, wherever it was moved to.
Recipe read_run_recipe(const std::string& run_dir);

// The adapter of a run: RUN/adapter, or that of its last checkpoint while it is not done.
// ConfigError if there is none yet.
std::string adapter_of_run(const std::string& run_dir);

}  // namespace qlora::recipes
