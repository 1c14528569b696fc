// Manual pages as roff with the macros of man(7).
#pragma once

#include <string>
#include <vector>

#include "cli/command.h"

namespace qlora::cli {

// Of the last command of `chain`, which begins with the program: {qlora, inspect, data}.
std::string man_page(const std::vector<CommandFacts>& chain);
// "qlora-inspect-data.1"
std::string man_file(const std::vector<CommandFacts>& chain);

}  // namespace qlora::cli
