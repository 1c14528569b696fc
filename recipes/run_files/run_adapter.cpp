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
    auto newest = trainer::newest_checkpoint(run_dir, trainer::Look::kSizes);
    const bool some_went = std::ranges::any_of(newest.passed_over, [](const auto& checkpoint) {
      return !fs::exists(fs::symlink_status(checkpoint.directory));
    });
    if (newest.whole || !some_went || look == kLooks) return newest;
    std::this_thread::sleep_for(kPause);
  }
}

bool lies_in(const fs::path& run_dir, const fs::path& checkpoint) {
  return fs::is_directory(checkpoint) &&
         fs::canonical(checkpoint).parent_path() == fs::canonical(run_dir) &&
         trainer::step_of_checkpoint(fs::canonical(checkpoint).filename().string());
}

std::string named_adapter(const std::string& run_dir, const std::string& checkpoint) {
  for (const fs::path& path : {fs::path(run_dir) / checkpoint, fs::path(checkpoint)}) {
    if (!lies_in(run_dir, path)) continue;
    // By its own name: of a run that goes on `best` may lead elsewhere a moment later.
    const fs::path held = fs::path(run_dir) / fs::canonical(path).filename();
    trainer::verify_checkpoint(held.string(), trainer::Look::kSizes);
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
  if (fs::exists(fs::path(run_dir) / "best")) names.emplace_back("best");
  for (const int64_t step : trainer::checkpoint_steps(run_dir))
    names.push_back(trainer::checkpoint_name(step));
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

std::optional<int64_t> step_of_adapter(const std::string& directory) {
  fs::path path = fs::canonical(directory);
  return trainer::step_of_checkpoint(path.parent_path().filename().string());
}

}  // namespace qlora::recipes
