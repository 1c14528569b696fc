// Scripts by which shells complete a program's commands, options and the values that options take.
// Other words are completed as files.
#pragma once

#include <string>

#include "cli/command.h"

namespace qlora::cli {

std::string bash_completion(const CommandFacts& program);
// For a file _qlora in zsh's fpath, or to be sourced.
std::string zsh_completion(const CommandFacts& program);
std::string fish_completion(const CommandFacts& program);

}  // namespace qlora::cli
