// qlora report: what runs did, as a page for a browser or in a few lines.
#pragma once

#include "cli/command.h"

void add_report_command(qlora::cli::Command app);
