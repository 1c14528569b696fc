// qlora generate.
#pragma once

#include "cli/command.h"

void add_generate_command(qlora::cli::Command app);
