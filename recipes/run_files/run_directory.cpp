#include "recipes/run_files/run_directory.h"

#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "export/card_text.h"
#include "io/append_file.h"
#include "io/atomic_write.h"
#include "io/nameless_file.h"
#include "io/read_file.h"
#include "lora/adapter_file.h"
#include "model/hub_cache.h"
#include "recipes/given_adapter.h"
#include "recipes/models/base_model.h"
#include "recipes/run_files/last_save.h"
#include "recipes/run_files/replaced_run.h"
#include "recipes/run_files/run_adapter.h"
#include "recipes/run_files/run_lock.h"
#include "recipes/run_files/run_names.h"
#include "recipes/run_files/set_aside.h"
#include "recipes/run_files/train_command.h"
#include "recipes/yaml/recipe_yaml.h"
#include "recipes/yaml/yaml_node.h"
#include "trainer/checkpoint.h"
#include "trainer/step_profile.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

void clear_half_made(const std::string& path) {
  remove_partial_name([&] {
    io::remove_partial(path, [](const std::string& name) {
      return belongs_to_a_run(name) || name == io::kNameless;
    });
  });
}

bool holds_anything(const std::string& path) {
  for (const fs::directory_entry& entry : fs::directory_iterator(path))
    if (entry.path().filename() != "log.txt" && entry.path().filename() != kLockFile) return true;
  return false;
}

// Whether a run has written what would be missed: an adapter, a base, a checkpoint, a line of
// metrics.
bool holds_value(const std::string& path) {
  for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
    const std::string name = entry.path().filename().string();
    if (belongs_to_a_run(name) && name != kRecipeFile && name != kReferenceFile &&
        name != kLastSave && name != "samples.jsonl" && name != "memory.json" &&
        !name.starts_with("events.") && !(name == "best" && entry.is_symlink()) &&
        holds_a_file(entry.path().string()))
      return true;
  }
  return false;
}

// The model that a run goes on with: the base that it wrote, where the one it began from is gone.
std::string model_of_run(const Recipe& recipe) {
  return model::find_model(recipe.model.path) ? recipe.model.path
                                              : with_saved_base(recipe).model.path;
}

bool names_checkpoint(const Recipe& recipe) {
  return recipe.train.resume != "auto" && recipe.train.resume != "never";
}

// The key alone is no word for this one start, as --overwrite is: the same command, given again,
// goes on with what it has begun.
bool replaces_any_run(const Recipe& recipe) {
  return recipe.output.overwrite && (recipe.output.begins_anew || recipe.train.resume == "never");
}

// Whether the run in `path` is one of this recipe that can go on and is not finished.
bool is_unfinished_run_of(const Recipe& recipe, const std::string& path) {
  return !has_adapter(path) && !trainer::checkpoint_steps(path).empty() &&
         fixed_differences(read_run_recipe(path), recipe).empty();
}

// Whether output.overwrite leaves what `path` holds for the recipe to go on from: an unfinished run
// of its own, or checkpoints without a recipe that can be read.
bool leaves_run(const Recipe& recipe, const std::string& path) {
  if (recipe.output.begins_anew) return false;
  if (!fs::exists(fs::path(path) / kRecipeFile)) return true;
  try {
    return is_unfinished_run_of(recipe, path);
  } catch (const ConfigError&) {
    return true;
  }
}

// What is to go on must not be removed.
void refuse_resume_of_what_is_replaced(const Recipe& recipe) {
  if (recipe.output.overwrite && names_checkpoint(recipe) && !leaves_run(recipe, recipe.output.dir))
    fail<ConfigError>(
        "train.resume: the run is to go on from {}, and output.overwrite (--overwrite) begins "
        "anew and removes what {} holds of a run; leave one of the two out (of a recipe with the "
        "key: --set output.overwrite=false)",
        recipe.train.resume, recipe.output.dir);
}

// Device and file number of a directory, which no other has as long as somebody holds it open; no
// numbers where there is none.
std::pair<uint64_t, uint64_t> place_of(const std::string& path) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0) return {};
  return {found.st_dev, found.st_ino};
}

// Whether a run of `before` that is done is done for `now` too.
bool is_no_longer(const Recipe& before, const Recipe& now) {
  const bool settles_alike =
      now.train.early_stopping_patience == before.train.early_stopping_patience &&
      (now.train.early_stopping_patience == 0 ||
       now.train.early_stopping_min_delta == before.train.early_stopping_min_delta);
  return now.train.max_steps <= before.train.max_steps && now.train.epochs <= before.train.epochs &&
         settles_alike;
}

// Of a run whose recipe is lost or cannot be read: how it goes on from its newest whole checkpoint.
// Empty if it has none.
std::string way_on_without_recipe(const std::string& run_dir) {
  if (!fs::is_directory(run_dir)) return "";
  const auto newest = trainer::newest_checkpoint(run_dir, trainer::Look::kSizes);
  if (!newest.whole) return "";
  // In an override a relative path would be relative to the recipe.
  const auto whole = [](const std::string& path) {
    return fs::absolute(path).lexically_normal().string();
  };
  return fmt::format(
      "The run goes on with the recipe that it was trained by: qlora train RECIPE --set {} "
      "--resume {}",
      exporting::shell_word("output.dir=" + to_yaml(Node::string(whole(run_dir)))),
      exporting::shell_word(whole(*newest.whole)));
}

[[noreturn]] void refuse_what_is_no_run(const std::string& path) {
  if (const std::string way = way_on_without_recipe(path); !way.empty())
    fail<ConfigError>(
        "output.dir: {} is not empty and holds no {}, but whole checkpoints. {}\nFor another run "
        "set another output.dir",
        path, kRecipeFile, way);
  if (holds_value(path))
    fail<ConfigError>(
        "output.dir: {} is not empty and holds no {}, but what a run may have written; choose "
        "another directory",
        path, kRecipeFile);
  fail<ConfigError>(
      "output.dir: {} is not empty and holds no run; choose another directory or empty it", path);
}

// As recipe.resolved.yaml has it.
std::string recorded_text(Recipe recipe) {
  recipe.output.overwrite = false;  // what was asked of this start, not of the run
  recipe.train.resume = "auto";
  return write_recipe(recipe);
}

// One that leads nowhere now does not say whether the run is finished, and its end could not take
// its place.
void require_adapter_within_reach(const std::string& path) {
  if (!fs::is_symlink(path) || fs::exists(path)) return;
  fail<ConfigError>(
      "output.dir: {} is a link to {}, which is not there (is its disk mounted?); bring that back, "
      "or remove the link",
      path, fs::read_symlink(path).string());
}

std::string faults_of(const std::vector<trainer::PassedOver>& passed_over) {
  std::string text;
  for (const trainer::PassedOver& checkpoint : passed_over) text += "\n  " + checkpoint.fault;
  return text;
}

}  // namespace

std::string RunDirectory::file(const std::string& name) const {
  return (fs::path(path_) / name).string();
}

RunDirectory::RunDirectory(const Recipe& recipe) : path_(recipe.output.dir) { open(recipe); }

RunDirectory::RunDirectory(const Recipe& recipe, distributed::Group& group)
    : path_(recipe.output.dir), leads_(group.leads()) {
  if (leads_) open(recipe);
  finished_ = group.broadcast(std::string(finished_ ? "finished" : "")) == "finished";
  const std::string checkpoint = group.broadcast(checkpoint_.value_or(""));
  if (!checkpoint.empty()) checkpoint_ = checkpoint;
}

void RunDirectory::open(const Recipe& recipe) {
  refuse_resume_of_what_is_replaced(recipe);
  require_no_place_of_a_run("output.dir", path_);
  try {
    io::make_directories(path_);
  } catch (const ConfigError& error) {
    fail<ConfigError>("output.dir: {}", error.what());
  } catch (const IoError& error) {
    fail<IoError>("output.dir: {}", error.what());
  }
  RunLock lock = lock_run(path_);
  lock_ = lock.held;
  place_ = place_of(path_);
  if (lock.is_certain) {
    io::recover_replaced(path_, belongs_to_a_run);
    clear_half_made(path_);
  }
  const bool is_replaced = is_being_replaced(path_);
  const bool has_run = is_replaced || fs::exists(file(kRecipeFile));
  replaces_a_run_ = has_run && (recipe.output.overwrite || is_replaced);
  const bool goes_on_all_the_same =
      replaces_a_run_ && !is_replaced && !replaces_any_run(recipe) &&
      (names_checkpoint(recipe) ? leaves_run(recipe, path_) : is_unfinished_run_of(recipe, path_));
  if (goes_on_all_the_same) replaces_a_run_ = false;
  // With its name a checkpoint is said to be of this recipe.
  const bool is_lost =
      !has_run && names_checkpoint(recipe) && !way_on_without_recipe(path_).empty();
  if (!has_run && !is_lost && holds_anything(path_)) refuse_what_is_no_run(path_);
  if (replaces_a_run_) {
    require_inputs_stay(recipe, path_);
    require_parts_can_go(path_);
  }
  io::require_appendable(file("log.txt"));
  log::open_file(file("log.txt"));
  if (is_replaced && !recipe.output.overwrite)
    log::warning(
        "{}: the run there was being replaced when that was cut short; what is left of it is "
        "removed, and the new run begins",
        path_);
  if (goes_on_all_the_same)
    log::info(
        "output.overwrite: the run of this recipe in {} is not finished and goes on; --overwrite "
        "begins anew",
        path_);
  if (is_lost || (!replaces_a_run_ && has_run && holds_value(path_))) {
    continue_run(recipe);
  } else if (names_checkpoint(recipe)) {
    fail<ConfigError>("train.resume: {} holds no run that could go on from {}", path_,
                      recipe.train.resume);
  }
  if (has_run && !replaces_a_run_ && !finished_ && !checkpoint_)
    log::info("{} holds no checkpoint to go on from: the run begins anew, at step 1", path_);
  // Before anything is read for long, set aside or written.
  if (!finished_ && !replaces_a_run_)
    for (const char* name : {"metrics.jsonl", "samples.jsonl"}) io::require_appendable(file(name));
}

void RunDirectory::begin(const Recipe& recipe, int64_t step, const std::string& rows) const {
  if (!leads_) return;
  const std::string text = recorded_text(recipe);
  const bool is_same = fs::exists(file(kRecipeFile)) && io::read_bytes(file(kRecipeFile)) == text &&
                       rows_of_last_start(path_).value_or(rows) == rows;
  if (replaces_a_run_) {
    replace_run(path_, text);
  } else {
    if (const fs::path best = file("best"); fs::is_directory(fs::symlink_status(best)))
      log::warning("{} is no link to a checkpoint, as a run makes it; it is now {}", best.string(),
                   set_aside(path_, "best"));
    set_aside_after(path_, step, is_same);
    if (recipe.train.profile_steps > 0 && fs::exists(file(trainer::kProfileFile)))
      log::info("the profile that lay there is now {}", set_aside(path_, trainer::kProfileFile));
    io::write_file_atomically(file(kRecipeFile), text);
  }
  note_last_save(path_, step, rows);
}

void RunDirectory::stay(const Recipe& recipe) {
  if (!leads_) return;
  const bool is_gone = place_of(path_) != place_;
  if (!is_gone && fs::exists(file(kRecipeFile))) return;
  if (is_gone) {
    io::make_directories(path_);
    const std::shared_ptr<const void> lock = lock_run(path_).held;
    if (holds_anything(path_))
      fail<ConfigError>(
          "{} was moved away while the run goes on, and another directory lies in its place, which "
          "is left as it is: nothing more is saved. Go on from what was saved before, where that "
          "lies now, with: qlora resume DIR",
          path_);
    lock_ = lock;
    place_ = place_of(path_);
  }
  io::write_file_atomically(file(kRecipeFile), recorded_text(recipe));
  log::open_file(file("log.txt"));
  if (!is_gone)
    return log::warning("{} was removed while the run goes on; it is written anew",
                        file(kRecipeFile));
  log::warning(
      "{} was removed or moved away while the run goes on; it is made anew for checkpoints and "
      "adapter. Earlier checkpoints and metrics are not in it any more, and further metrics are "
      "written there only once the run is stopped and resumed",
      path_);
}

void RunDirectory::compare_recipes(const Recipe& before, const Recipe& recipe) const {
  const std::vector<std::string> changes = fixed_differences(before, recipe);
  if (!changes.empty()) {
    fail<ConfigError>(
        "output.dir: {} holds a run of another recipe, which cannot be continued with these "
        "changes:\n  {}\nSet another output.dir, or replace that run with --overwrite",
        path_, fmt::join(changes, "\n  "));
  }
  for (const std::string& change : free_differences(before, recipe))
    if (!change.starts_with("output.dir") && !change.starts_with("output.overwrite") &&
        !change.starts_with("train.resume"))
      log::info("changed since the last start: {}", change);
}

// Nothing if it is lost, and `recipe` names the checkpoint that it is to go on from.
std::optional<Recipe> RunDirectory::recorded_recipe(const Recipe& recipe) {
  try {
    return read_run_recipe(path_);
  } catch (const ConfigError&) {
    if (!names_checkpoint(recipe)) throw;
  }
  log::warning(
      "{} is missing or cannot be read: the run goes on from {} by the recipe that is given, of "
      "which the form of the adapter, the base and the rows are compared, and nothing else",
      file(kRecipeFile), recipe.train.resume);
  has_lost_recipe_ = true;
  return std::nullopt;
}

void RunDirectory::continue_run(const Recipe& recipe) {
  require_adapter_within_reach(file("adapter"));
  if (recipe.train.resume == "never") {
    fail<ConfigError>(
        "output.dir: {} holds a run and train.resume is never; choose another directory, or "
        "replace the run with --overwrite",
        path_);
  }
  const std::optional<Recipe> before = recorded_recipe(recipe);
  if (before) compare_recipes(*before, recipe);
  if (!before || names_checkpoint(recipe)) return continue_from(recipe);
  const bool has_adapter = recipes::has_adapter(path_);
  if (has_adapter && is_no_longer(*before, recipe)) {
    finished_ = true;
    return;
  }
  const auto newest = trainer::newest_checkpoint(path_, trainer::Look::kHashes);
  if (!newest.whole && has_adapter) {
    fail<ConfigError>(
        "output.dir: {} holds a finished run without a whole checkpoint, which cannot be made "
        "longer; start another run with lora.from_adapter: {}, or replace it with --overwrite{}",
        path_, file("adapter"), faults_of(newest.passed_over));
  }
  if (!newest.whole && std::ranges::any_of(newest.passed_over, [](const auto& checkpoint) {
        return holds_a_file(checkpoint.directory);
      })) {
    fail<FormatError>(
        "output.dir: {} holds a run of which no checkpoint is whole:{}\nRestore one, set another "
        "output.dir, or replace the run: {} --overwrite",
        path_, faults_of(newest.passed_over), train_command(path_));
  }
  for (const trainer::PassedOver& checkpoint : newest.passed_over)
    log::warning("passed over: {}", checkpoint.fault);
  checkpoint_ = newest.whole;
  if (checkpoint_) trainer::verify_checkpoint(*checkpoint_, trainer::Look::kSizes);
}

// A name within the run, or a path.
void RunDirectory::continue_from(const Recipe& recipe) {
  const std::string& named = recipe.train.resume;
  for (const std::string& path : {file(named), named})
    if (!checkpoint_ && fs::is_directory(path)) checkpoint_ = path;
  const auto way_out = [&]() -> std::string {
    const auto newest = trainer::newest_checkpoint(path_, trainer::Look::kHashes);
    if (!newest.whole || newest.whole == checkpoint_) return "";
    return fmt::format("; the newest whole one: qlora resume {} --from {}",
                       exporting::shell_word(path_), exporting::shell_word(*newest.whole));
  };
  if (!checkpoint_)
    fail<ConfigError>("train.resume (--resume, --from): there is no checkpoint {}; {} holds: {}{}",
                      named, path_, checkpoints_in(path_), way_out());
  try {
    trainer::verify_checkpoint(*checkpoint_);
  } catch (const FormatError& error) {
    fail<FormatError>("{}{}", error.what(), way_out());
  }
  require_own(recipe);
}

// That the checkpoint is of a run of this recipe: its tensors do not show alpha, nor its state what
// the optimizer was told. A copy of one of this run's has no recipe beside it, or this one.
void RunDirectory::require_own(const Recipe& recipe) const {
  const fs::path source = fs::path(*checkpoint_).lexically_normal();
  const fs::path beside =
      (source.has_filename() ? source : source.parent_path()).parent_path() / kRecipeFile;
  std::vector<std::string> differences;
  std::error_code is_elsewhere;
  const bool is_lost =
      has_lost_recipe_ && fs::equivalent(beside.parent_path(), path_, is_elsewhere);
  if (fs::exists(beside) && !is_lost)
    differences = fixed_differences(read_run_recipe(beside.parent_path().string()), recipe);
  const std::string model = model_of_run(recipe);
  const std::string adapter = (source / "adapter").string();
  if (differences.empty() && model::find_model(model))
    differences = differences_of_form(recipe, lora::read_adapter_options(adapter), model);
  if (differences.empty()) return;
  fail<ConfigError>(
      "train.resume: {} is a checkpoint of a run of another recipe, from which this run cannot go "
      "on (there -> here):\n  {}\nName a checkpoint of this run, or begin another run with its "
      "adapter: lora.from_adapter: {}",
      *checkpoint_, fmt::join(differences, "\n  "), adapter);
}

namespace {

// The recipe with what it takes over of a run that began from the same adapter.
Recipe as_begun(Recipe recipe, const Recipe& begun) {
  if (recipe.lora.from_adapter.empty() || recipe.lora.from_adapter != begun.lora.from_adapter)
    return recipe;
  recipe.lora = begun.lora;
  return recipe;
}

}  // namespace

std::optional<Recipe> begun_run(const Recipe& recipe) {
  const fs::path run = recipe.output.dir, path = run / kRecipeFile;
  if (replaces_any_run(recipe) || !fs::exists(path) || is_being_replaced(run.string()))
    return std::nullopt;
  const bool is_finished = has_adapter(run.string());
  if (is_finished ? recipe.output.overwrite : trainer::checkpoint_steps(run.string()).empty())
    return std::nullopt;
  Recipe begun;
  try {
    begun = parse_recipe(io::read_bytes(path.string()), path.string(), run.string());
  } catch (const ConfigError&) {
    if (names_checkpoint(recipe)) return std::nullopt;  // RunDirectory goes on from that
    throw;
  }
  if (recipe.output.overwrite && !fixed_differences(begun, as_begun(recipe, begun)).empty())
    return std::nullopt;
  return begun;
}

Recipe read_run_recipe(const std::string& run_dir) {
  const fs::path path =
      fs::path(run_dir) / (is_being_replaced(run_dir) ? kReplacingRecipe : kRecipeFile);
  if (!fs::exists(path)) {
    const std::string way = way_on_without_recipe(run_dir);
    fail<ConfigError>("{} is no run: it holds no {}{}", run_dir, kRecipeFile,
                      way.empty() ? "" : ", but whole checkpoints. " + way);
  }
  Recipe recipe;
  try {
    recipe = read_recipe(path.string());
  } catch (const ConfigError& error) {
    const std::string way = way_on_without_recipe(run_dir);
    if (way.empty()) throw;
    fail<ConfigError>("{}\nIts checkpoints are whole. {}", error.what(), way);
  }
  recipe.output.dir = fs::absolute(run_dir).lexically_normal().string();
  return recipe;
}

}  // namespace qlora::recipes
