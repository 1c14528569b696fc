// Exports a trained model, reloads what was written and compares it with the model in memory.
#pragma once

#include <string>

#include "export/verify.h"
#include "recipes/models/trained_model.h"

namespace qlora::recipes {

struct ExportOptions {
  std::string format;  // adapter | merged | gguf | gguf-lora
  std::string output;  // directory, which must not exist or be empty
  // Of merged weights: bfloat16, float16, float32, or auto: as the base's unquantized modules are
  // held, which is as its file has them if model.dtype does not say otherwise.
  std::string dtype = "auto";
  // What the adapter is merged into: dequantized (the base as it was trained on), original (the
  // 16-bit weights before quantization), or auto: both are written and compared with the trained
  // model, and the one with the lower KL divergence from it is kept.
  std::string merge_base = "dequantized";
  std::string original = "";  // where the 16-bit weights lie; empty: where the base came from
  // Of an adapter: stacked, as PEFT has them with transformers 5, or separate, a Linear for each
  // matrix, as with transformers 4 (lora/separate_experts.h).
  std::string experts = "stacked";
  // Of GGUF files (export/gguf_types.h). Empty: f16, of an adapter f32.
  std::string type = "";
  // Of the files of merged weights: "5GB", "800MB".
  std::string max_shard_size = "5GB";
};

// ConfigError unless format, dtype and merge base are known and go together; asked before a model
// is loaded.
void check_export_options(const ExportOptions& options);

// Memory: writing takes the trained model and one tensor in fp32, whatever the merge base; the
// comparison then takes the trained model and the merged one.
//
// Complete or absent: README.md lies in the directory, a card of the model (export/model_card.h,
// export/export_card.h), and verification.json with what the comparison found, for
// merged weights also dtype (of GGUF files the type) and merge base, under auto for both bases.
// ConfigError for a format
// that needs an adapter where there is none, errors of open_original; Error if the reloaded export
// is not the model that was trained (top-1 agreement below 80 %). On original weights, which make
// another model, and of GGUF files in a quantized type, that is a warning.
exporting::Agreement export_model(TrainedModel& trained, const ExportOptions& options);

}  // namespace qlora::recipes
