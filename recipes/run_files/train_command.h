// The command that trains with the recipe that a run has recorded, for messages.
#pragma once

#include <string>

namespace qlora::recipes {

// "qlora train RUN/recipe.resolved.yaml --set output.dir=RUN", as words of a shell. The directory
// is named since the recipe of a run that was moved or copied says where it was when it began.
std::string train_command(const std::string& run_dir);

// What is said behind an error about the base of a run that is not found any more: the commands
// that take it from elsewhere, of one that trains and of one that reads the adapter.
std::string way_on_with_moved_base(const std::string& run_dir);
std::string way_to_read_on_moved_base(const std::string& run_dir);

}  // namespace qlora::recipes
