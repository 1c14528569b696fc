// qlora completion and qlora man: what shells and the manual know of the program, made from the
// definitions of its commands.
#pragma once

#include "cli/command.h"

// `app`: the program; its commands are looked at when one of the two runs.
void add_completion_command(qlora::cli::Command app);
void add_man_command(qlora::cli::Command app);
