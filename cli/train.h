// qlora train and qlora resume.
#pragma once

#include "cli/command.h"

void add_train_command(qlora::cli::Command app);
void add_resume_command(qlora::cli::Command app);
