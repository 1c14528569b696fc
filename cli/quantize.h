// qlora quantize and qlora dequantize.
#pragma once

#include "cli/command.h"

void add_quantize_command(qlora::cli::Command app);
void add_dequantize_command(qlora::cli::Command app);
