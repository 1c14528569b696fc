// qlora evaluate.
#pragma once

#include "cli/command.h"

void add_evaluate_command(qlora::cli::Command app);
