// `qlora plan`: memory by purpose and time a step, before anything is loaded.
#pragma once

#include "cli/command.h"

void add_plan_command(qlora::cli::Command app);
