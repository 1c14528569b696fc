// qlora recipes: lists and copies the ready recipes.
#pragma once

#include "cli/command.h"

void add_recipes_command(qlora::cli::Command app);
