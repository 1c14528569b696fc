// What is told of a run in words: its settings, its figures, and what was checked of it.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "recipes/recipe.h"
#include "recipes/report/metrics_columns.h"
#include "trainer/train_state.h"

namespace qlora::recipes {

// [[label, text], ...]. `state`: of the newest whole checkpoint, if there is one.
nlohmann::ordered_json run_facts(const Recipe& recipe, const MetricsColumns& metrics,
                                 const std::optional<trainer::TrainState>& state);

// [[what, result], ...]: that adapter and checkpoints name the same base, that the checkpoints are
// whole, and what reloading the exports in `directories` found. ConfigError for a directory without
// a verification.json.
nlohmann::ordered_json run_checks(const std::string& run_dir,
                                  const std::vector<std::string>& directories);

}  // namespace qlora::recipes
