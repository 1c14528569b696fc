#include "recipes/run_files/train_command.h"

#include <fmt/format.h>

#include <filesystem>

#include "export/card_text.h"
#include "recipes/run_files/run_names.h"
#include "recipes/yaml/yaml_node.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {

std::string train_command(const std::string& run_dir) {
  namespace fs = std::filesystem;
  // In an override a relative path would be relative to the recipe.
  const std::string dir = fs::absolute(run_dir).lexically_normal().string();
  return fmt::format("qlora train {} --set {}",
                     exporting::shell_word((fs::path(run_dir) / kRecipeFile).string()),
                     exporting::shell_word("output.dir=" + to_yaml(Node::string(dir))));
}

std::string way_on_with_moved_base(const std::string& run_dir) {
  return fmt::format("\nIf the base of the run lies elsewhere now: {} --set model.path=/PATH",
                     train_command(run_dir));
}

std::string way_to_read_on_moved_base(const std::string& run_dir) {
  namespace fs = std::filesystem;
  fs::path holder = run_dir;  // of a run that is not finished the last checkpoint
  if (const auto steps = trainer::checkpoint_steps(run_dir);
      !steps.empty() && !has_adapter(run_dir))
    holder /= trainer::checkpoint_name(steps.back());
  const std::string adapter = (holder / "adapter").string();
  return fmt::format(
      "\nIf the base of the run lies elsewhere now, give in place of {}: --model PATH --adapter {}",
      exporting::shell_word(run_dir), exporting::shell_word(adapter));
}

}  // namespace qlora::recipes
