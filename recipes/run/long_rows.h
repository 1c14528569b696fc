// Rows that are longer than what the model was made for.
#pragma once

#include <vector>

#include "data/examples.h"
#include "model/architecture.h"

namespace qlora::recipes {

// Warns, with place and length of the first, of examples of more tokens than the model reaches
// (model/position_limit.h): rotary positions go on beyond, where it has learnt nothing.
// ConfigError where positions are a table (GPT-2, OPT), which ends there. `sets`: data.train or
// data.eval, from which the examples come.
void check_row_lengths(const data::Examples& examples,
                       const std::vector<data::DatasetOptions>& sets,
                       const model::Architecture& architecture);

}  // namespace qlora::recipes
