// qlora doctor: what this machine and this build can do.
#pragma once

#include "cli/command.h"

void add_doctor_command(qlora::cli::Command app);
