// qlora render: the text that a chat template makes of messages, the way training and generation
// see it.
#pragma once

#include "cli/command.h"

void add_render_command(qlora::cli::Command app);
