#include "recipes/run/broken_off.h"

#include <fmt/ranges.h>

#include <exception>
#include <filesystem>
#include <optional>
#include <vector>

#include "export/card_text.h"
#include "recipes/models/base_model.h"
#include "recipes/run_files/run_names.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

// The newest ones: enough to find one from before a rise.
std::string names_of(std::vector<int64_t> steps) {
  constexpr size_t kNamed = 6;
  std::vector<std::string> names;
  if (steps.size() > kNamed) {
    names.emplace_back("...");
    steps.erase(steps.begin(), steps.end() - kNamed);
  }
  for (const int64_t step : steps) names.push_back(trainer::checkpoint_name(step));
  return fmt::format("{}", fmt::join(names, ", "));
}

std::vector<int64_t> known_steps(const std::string& run_dir) {
  try {
    return trainer::checkpoint_steps(run_dir);
  } catch (const std::exception&) {  // the divergence is what counts
    return {};
  }
}

}  // namespace

std::string way_out_of_divergence(const std::string& run_dir) {
  const std::vector<int64_t> steps = known_steps(run_dir);
  if (steps.empty()) return "No checkpoint is saved; train another run from the start";
  const fs::path run = fs::absolute(run_dir).lexically_normal();
  const std::string base = (run / "base").string();
  // In an override a relative path would be relative to the recipe.
  return fmt::format(
      "A resumed run repeats the same steps. Train another one from the start, or from a "
      "checkpoint before the loss rose ({}): qlora train {} --set output.dir=/NEW_DIR --set "
      "optim.lr=LOWER --set lora.from_adapter={}{}",
      names_of(steps), exporting::shell_word((fs::path(run_dir) / kRecipeFile).string()),
      exporting::shell_word((run / trainer::checkpoint_name(steps.front()) / "adapter").string()),
      is_changed_base(base) ? " --set " + exporting::shell_word("model.path=" + base) : "");
}

std::string way_on_after_refusal(const std::string& run_dir) {
  const std::string command = "qlora resume " + exporting::shell_word(run_dir);
  std::optional<std::string> whole;
  try {
    whole = trainer::newest_checkpoint(run_dir, trainer::Look::kSizes).whole;
  } catch (const std::exception&) {  // the disk, again: the first error is what counts
    return fmt::format("Once that is mended, go on with: {}", command);
  }
  if (!whole)
    return fmt::format("No step is saved; once that is mended, the run begins anew with: {}",
                       command);
  return fmt::format("The run is saved after step {}; once that is mended, go on with: {}",
                     *trainer::step_of_checkpoint(fs::path(*whole).filename().string()), command);
}

}  // namespace qlora::recipes
