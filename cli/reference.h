// qlora reference: the recipe keys as docs/recipes.md.
#pragma once

#include "cli/command.h"

void add_reference_command(qlora::cli::Command app);
