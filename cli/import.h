// qlora import: makes a recipe of the file of another tool.
#pragma once

#include "cli/command.h"

void add_import_command(qlora::cli::Command app);
