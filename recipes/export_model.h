// Exports a trained model, reloads what was written and compares it with the model in memory.
#pragma once

#include <string>

#include "export/verify.h"
#include "recipes/trained_model.h"

namespace qlora::recipes {

struct ExportOptions {
  std::string format;              // adapter | merged
  std::string output;              // directory, which must not exist or be empty
  std::string dtype = "bfloat16";  // of merged weights
};

// ConfigError unless the format and dtype are known; asked before a model is loaded.
void check_export_options(const ExportOptions& options);

// Complete or absent: verification.json lies in the directory with what the comparison found.
// ConfigError for a format that needs an adapter where there is none; Error if the reloaded export
// is not the model that was trained (top-1 agreement below 80 %).
exporting::Agreement export_model(TrainedModel& trained, const ExportOptions& options);

}  // namespace qlora::recipes
