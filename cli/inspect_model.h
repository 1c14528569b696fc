// `qlora inspect` of models and runs: what lies in the files, and where the bytes go.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "io/tensor_view.h"

namespace qlora::cli {

// Facts as JSON. "family" is the model's, null where this version reads no such family, and then
// "not_read" says why. "footprint" is a table: rows of module, count, parameters, format and bytes,
// sums by format, and the total.
nlohmann::ordered_json describe_gguf(const std::string& path);
nlohmann::ordered_json describe_model_directory(const std::string& path);
// The footprint of a run's base as the run keeps it in memory, with the adapter's; null if the base
// is not there any more. Of a run that is to replace another one and has not begun: of its base.
nlohmann::ordered_json run_footprint(const std::string& run_directory);

// Tensors, weights and bytes of each dtype.
nlohmann::ordered_json tensor_facts(const std::vector<io::TensorView>& tensors);

// The table for people.
std::string footprint_text(const nlohmann::ordered_json& footprint);

}  // namespace qlora::cli
