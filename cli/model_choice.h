// The options by which commands are told which model to use: RUN_DIR | --model M [--adapter A], or
// all but the adapter.
#pragma once

#include "recipes/trained_model.h"

namespace CLI {
class App;
}

namespace qlora::cli {

void add_base_choice(CLI::App& command, recipes::ModelChoice& choice);
void add_model_choice(CLI::App& command, recipes::ModelChoice& choice);

}  // namespace qlora::cli
