// qlora chat.
#pragma once

#include "cli/command.h"

void add_chat_command(qlora::cli::Command app);
