// The options by which commands are told which model to use: RUN_DIR | --model M [--adapter A], or
// all but the adapter.
#pragma once

#include "cli/command.h"
#include "recipes/models/trained_model.h"

namespace qlora::cli {

void add_base_choice(Command command, recipes::ModelChoice& choice);
void add_model_choice(Command command, recipes::ModelChoice& choice);

}  // namespace qlora::cli
