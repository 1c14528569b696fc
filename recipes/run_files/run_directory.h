// The directory of a run: whether it begins, goes on or is done, and that no one else writes to it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "distributed/group.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

class RunDirectory {
 public:
  // Finds out what output.dir holds and takes hold of it; log.txt is written, and what a kill left
  // half made of a run's own files is cleared away. A run of the same recipe is finished, or goes
  // on from its last whole checkpoint, or from the one that train.resume names, or begins again
  // where it saved none. Of one whose recipe.resolved.yaml is lost a checkpoint must be named by
  // train.resume, which says that it is of this recipe. One that wrote nothing of value yet makes
  // room for any recipe, and so does one whose replacement was cut short: the rest of it goes as
  // the replacement would have removed it. output.overwrite replaces any run but one of the same
  // recipe that has a checkpoint and is not finished, for which it takes output.begins_anew, or
  // train.resume never: a recipe with the key, started again, goes on as one without it.
  //
  // ConfigError if the directory holds another run (naming each key that differs), something else,
  // or is in use by another process, if what is to be replaced holds something that the recipe
  // reads, if train.resume names a checkpoint in spite of output.overwrite, and if the named one is
  // of a run of another recipe (naming what differs). FormatError if none of its checkpoints is
  // whole, or the named one is not. IoError if its metrics, samples or log cannot be written to.
  explicit RunDirectory(const Recipe& recipe);
  // Of several ranks the first does all this, and the others are told what it found.
  RunDirectory(const Recipe& recipe, distributed::Group& group);

  // Writes recipe.resolved.yaml, removes the run that this one replaces (and says what goes with
  // it before), sets aside what the directory holds of steps after `step`, from which the run goes
  // on (set_aside.h), and notes that nothing after it is saved (last_save.h): to be called when
  // model, data and checkpoint have been read, so that a mistake in them costs nothing. Only the
  // first rank does so. `rows`: the fingerprint of the rows that the run trains on, by which the
  // next start knows whether it takes the same steps again.
  void begin(const Recipe& recipe, int64_t step, const std::string& rows = "") const;

  // Of a run that has begun, before it saves: whether its directory is still there. One that was
  // removed or moved away is made anew with the recipe, as given to begin(), so that what is saved
  // is a run; a warning says so. Only the first rank does so. ConfigError if another process runs
  // there by now. IoError.
  void stay(const Recipe& recipe);

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const;
  // Nothing is left to train: the adapter of the run's end is there.
  bool finished() const { return finished_; }
  // Where to go on from; nothing: from the start.
  const std::optional<std::string>& checkpoint() const { return checkpoint_; }

 private:
  void open(const Recipe& recipe);
  void compare_recipes(const Recipe& before, const Recipe& recipe) const;
  std::optional<Recipe> recorded_recipe(const Recipe& recipe);
  void continue_run(const Recipe& recipe);
  void continue_from(const Recipe& recipe);
  void require_own(const Recipe& recipe) const;

  std::string path_;
  std::optional<std::string> checkpoint_;
  bool leads_ = true, replaces_a_run_ = false, finished_ = false;
  bool has_lost_recipe_ = false;
  std::pair<uint64_t, uint64_t> place_;  // device and number of the directory that is held
  std::shared_ptr<const void> lock_;     // held as long as this lives
};

// The recipe of the run in output.dir that goes on from what it has saved, without a look
// at the files that it names; nothing if there is none, or `recipe` replaces it whatever recipe it
// is of.
// ConfigError if it cannot be read.
std::optional<Recipe> begun_run(const Recipe& recipe);

// The recipe of a run by its directory; ConfigError if that holds no run. Its output.dir is the
// directory, wherever it was moved to. Of one that is being replaced: the new one's.
Recipe read_run_recipe(const std::string& run_dir);

}  // namespace qlora::recipes
