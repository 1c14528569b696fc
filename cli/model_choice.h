// The options by which commands are told which model to use: RUN_DIR | --model M [--adapter A].
#pragma once

#include "recipes/trained_model.h"

namespace CLI {
class App;
}

namespace qlora::cli {

void add_model_choice(CLI::App& command, recipes::ModelChoice& choice);

}  // namespace qlora::cli
