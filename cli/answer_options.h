#pragma once

#include "cli/command.h"
#include "model/generate.h"

namespace qlora::cli {

// How answers are chosen: --temperature, --top-p, --max-new-tokens, --seed, --draft-tokens. What
// `options` holds is what is shown as the default.
void add_answer_options(Command command, model::GenerateOptions& options);

}  // namespace qlora::cli
