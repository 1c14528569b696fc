#include "recipes/run_files/run_adapter.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "export/card_text.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/run_files/run_names.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

// A run that goes on may write a checkpoint and remove older ones while they are looked at: then
// the look is taken again. A network file system may list what is removed for some time more, in
// the worst case longer than is waited here.
trainer::NewestCheckpoint newest_while_it_goes_on(const std::string& run_dir) {
  constexpr int kLooks = 50;
  constexpr std::chrono::milliseconds kPause(20);
  for (int look = 1;; ++look) {
    auto newest = trainer::newest_checkpoint(run_dir, trainer::Look::kAdapter);
    const bool some_went = std::ranges::any_of(newest.passed_over, [](const auto& checkpoint) {
      return !fs::exists(fs::symlink_status(checkpoint.directory));
    });
    if (newest.whole || !some_went || look == kLooks) return newest;
    std::this_thread::sleep_for(kPause);
  }
}

// The name that the checkpoint at `path` has in the run: its own, or the one to which a link such
// as `best` leads. Where a checkpoint lies on another disk, that name is a link itself. Empty if
// there is none.
std::string name_in_run(const fs::path& run_dir, fs::path path) {
  path = path.lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  std::error_code no_path;  // also of names that are too long
  for (const fs::path& named :
       {path, path.parent_path() / fs::read_symlink(path, no_path), fs::canonical(path, no_path)})
    if (trainer::step_of_checkpoint(named.filename().string()) &&
        fs::is_directory(named, no_path) &&
        fs::equivalent(run_dir, named.parent_path() / ".", no_path))
      return named.filename().string();
  return "";
}

std::string named_adapter(const std::string& run_dir, const std::string& checkpoint) {
  for (const fs::path& path : {fs::path(run_dir) / checkpoint, fs::path(checkpoint)}) {
    const std::string name = name_in_run(run_dir, path);
    if (name.empty()) continue;
    // By its own name: of a run that goes on `best` may lead elsewhere a moment later.
    const fs::path held = fs::path(run_dir) / name;
    trainer::verify_checkpoint(held.string(), trainer::Look::kAdapter);
    return (held / "adapter").string();
  }
  fail<ConfigError>("--checkpoint: {} holds no checkpoint {}; it holds: {}", run_dir, checkpoint,
                    checkpoints_in(run_dir));
}

}  // namespace

std::string adapter_of_run(const std::string& run_dir, const std::string& checkpoint) {
  if (is_being_replaced(run_dir))
    fail<ConfigError>(
        "{} has no adapter: the run there is being replaced by another one, or was when that was "
        "cut short; begin the new one with: qlora resume {}",
        run_dir, exporting::shell_word(run_dir));
  if (!checkpoint.empty()) return named_adapter(run_dir, checkpoint);
  const fs::path adapter = fs::path(run_dir) / "adapter";
  if (fs::exists(adapter)) return adapter.string();
  const trainer::NewestCheckpoint newest = newest_while_it_goes_on(run_dir);
  for (const trainer::PassedOver& passed : newest.passed_over)
    log::warning("passed over: {}", passed.fault);
  if (!newest.whole) {
    fail<ConfigError>("{} has no adapter yet: the run has saved no {}checkpoint", run_dir,
                      newest.passed_over.empty() ? "" : "whole ");
  }
  log::warning("{}: the run is not finished; its last checkpoint is used ({})", run_dir,
               *newest.whole);
  return (fs::path(*newest.whole) / "adapter").string();
}

std::string checkpoints_in(const std::string& run_dir) {
  std::vector<std::string> names;
  if (!name_in_run(run_dir, fs::path(run_dir) / "best").empty()) names.emplace_back("best");
  for (const int64_t step : trainer::checkpoint_steps(run_dir))
    names.push_back(trainer::checkpoint_name(step));
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

std::optional<int64_t> step_of_adapter(const std::string& directory) {
  const auto step_of = [](const fs::path& adapter) {
    return trainer::step_of_checkpoint(adapter.parent_path().filename().string());
  };
  const auto step = step_of(fs::absolute(directory).lexically_normal());
  return step ? step : step_of(fs::canonical(directory));
}

}  // namespace qlora::recipes
