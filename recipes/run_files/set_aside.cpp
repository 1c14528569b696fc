#include "recipes/run_files/set_aside.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <system_error>
#include <vector>

#include "base/log.h"
#include "io/atomic_write.h"
#include "io/read_file.h"
#include "recipes/run_files/last_save.h"
#include "trainer/checkpoint.h"
#include "trainer/cut_lines.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

constexpr const char* kPrefix = "set-aside-";

fs::path unused_name(const fs::path& run_dir) {
  for (int number = 1;; ++number)
    if (const fs::path path = run_dir / (kPrefix + std::to_string(number)); !fs::exists(path))
      return path;
}

// A link that says from where it lies where it leads goes on leading there from one folder below.
void move_below(const fs::path& run_dir, const fs::path& aside, const std::string& name) {
  const fs::path from = run_dir / name, to = aside / name;
  std::error_code is_no_link;
  const fs::path target = fs::read_symlink(from, is_no_link);
  if (is_no_link || target.is_absolute()) return io::move(from.string(), to.string());
  if (!io::replace_link(to.string(), (fs::path("..") / target).string()))
    return io::move(from.string(), to.string());
  io::remove_file(from.string());
}

// Checkpoints of later steps, the last one first.
std::vector<std::string> later_checkpoints(const fs::path& run_dir, int64_t step) {
  std::vector<std::string> names;
  std::vector<int64_t> steps = trainer::checkpoint_steps(run_dir.string());
  for (; !steps.empty() && steps.back() > step; steps.pop_back()) {
    std::string name = trainer::checkpoint_name(steps.back());
    if (holds_a_file((run_dir / name).string())) {
      names.push_back(std::move(name));
    } else {
      log::info("{} is empty and was removed", (run_dir / name).string());
      fs::remove_all(run_dir / name);
    }
  }
  return names;
}

std::vector<std::string> files_with_later_lines(const fs::path& run_dir, int64_t step) {
  std::vector<std::string> names;
  for (const char* name : {"metrics.jsonl", "samples.jsonl"})
    if (trainer::goes_on_after((run_dir / name).string(), step)) names.emplace_back(name);
  return names;
}

// Whether later lines are more than a kill left between two checkpoints, which the same steps write
// again: there was a checkpoint of a later step. It counts as there where nothing is noted.
bool has_saved_after(const fs::path& run_dir, int64_t step) {
  return last_save(run_dir.string()).value_or(std::numeric_limits<int64_t>::max()) > step;
}

}  // namespace

bool is_set_aside(const std::string& name) {
  const std::string number = name.starts_with(kPrefix) ? name.substr(std::strlen(kPrefix)) : "";
  return !number.empty() && number[0] != '0' &&
         number.find_first_not_of("0123456789") == std::string::npos;
}

bool holds_a_file(const std::string& path) {
  if (fs::is_symlink(path) && !fs::exists(path)) return true;
  if (!fs::is_directory(path)) return fs::is_regular_file(path) && fs::file_size(path) > 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path))
    if (!entry.is_directory()) return true;
  return false;
}

void set_aside_after(const std::string& run_dir, int64_t step, bool same_recipe) {
  const fs::path run(run_dir);
  const std::vector<std::string> checkpoints = later_checkpoints(run, step);
  // The adapter first: while it is there the run counts as finished.
  std::vector<std::string> moved;
  if (fs::exists(run / "adapter")) moved.emplace_back("adapter");
  moved.insert(moved.end(), checkpoints.begin(), checkpoints.end());
  const std::vector<std::string> copied = files_with_later_lines(run, step);
  const bool come_again = same_recipe && !has_saved_after(run, step);
  if (moved.empty() && (copied.empty() || come_again)) return;
  const bool is_beyond =
      !moved.empty() || std::ranges::any_of(copied, [&](const std::string& name) {
        return trainer::has_step_after((run / name).string(), step);
      });
  const fs::path aside = unused_name(run);
  io::make_directories(aside.string());
  for (const std::string& name : copied)
    io::write_file_atomically((aside / name).string(), io::read_bytes((run / name).string()));
  for (const std::string& name : moved) move_below(run, aside, name);
  moved.insert(moved.end(), copied.begin(), copied.end());
  log::warning("the run {}; {} in {} ({}), which may be deleted",
               step > 0 ? fmt::format("goes on from step {}", step) : std::string("begins anew"),
               is_beyond ? "what it had written beyond that is now"
                         : "lines that are torn are left out, and what there was is now",
               aside.string(), fmt::join(moved, ", "));
}

std::string set_aside(const std::string& run_dir, const std::string& name) {
  const fs::path run(run_dir), aside = unused_name(run);
  io::make_directories(aside.string());
  move_below(run, aside, name);
  return (aside / name).string();
}

}  // namespace qlora::recipes
