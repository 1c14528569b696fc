// qlora export.
#pragma once

#include "cli/command.h"

void add_export_command(qlora::cli::Command app);
