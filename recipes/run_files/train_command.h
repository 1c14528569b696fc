// The command that trains with the recipe that a run has recorded, for messages.
#pragma once

#include <string>

namespace qlora::recipes {

// "qlora train RUN/recipe.resolved.yaml --set output.dir=RUN", as words of a shell. The directory
// is named since the recipe of a run that was moved or copied says where it was when it began.
std::string train_command(const std::string& run_dir);

}  // namespace qlora::recipes
