#include "recipes/run_files/train_command.h"

#include <fmt/format.h>

#include <filesystem>

#include "export/card_text.h"
#include "recipes/run_files/run_names.h"
#include "recipes/yaml/yaml_node.h"

namespace qlora::recipes {

std::string train_command(const std::string& run_dir) {
  namespace fs = std::filesystem;
  // In an override a relative path would be relative to the recipe.
  const std::string dir = fs::absolute(run_dir).lexically_normal().string();
  return fmt::format("qlora train {} --set {}",
                     exporting::shell_word((fs::path(run_dir) / kRecipeFile).string()),
                     exporting::shell_word("output.dir=" + to_yaml(Node::string(dir))));
}

}  // namespace qlora::recipes
