// qlora tokenize: text to token ids and back, the way training and generation do it.
#pragma once

#include "cli/command.h"

void add_tokenize_command(qlora::cli::Command app);
