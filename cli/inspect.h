// qlora inspect: what lies at a path, or (inspect data) what a recipe makes of its rows.
#pragma once

#include "cli/command.h"

void add_inspect_command(qlora::cli::Command app);
