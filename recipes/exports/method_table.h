// What methods of quantization did to one model, as a table to choose from: for people, as Markdown
// and as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "export/verify.h"
#include "recipes/exports/calibration_rows.h"
#include "recipes/exports/quantize_model.h"

namespace qlora::recipes {

struct MethodRow {
  std::string method;    // "gptq:3"; of the model itself its type, "bfloat16"
  double bits = 0;       // a weight of the quantized layers, scales and zeros included
  int64_t bytes = 0;     // of the whole model
  LayerErrors errors;    // |W - Q| / |W| of the quantized layers, Frobenius norms
  double kl = 0;         // KL(model || quantized) of the next token, mean of the tokens, nats
  double top1 = 0;       // share of the tokens where both find the same one most likely
  double loss = 0;       // of the held-out rows, nats a trained token
  double seconds = 0;    // to read and quantize it
  std::string settings;  // "group size 128"; empty: nothing to tell
};

struct MethodTable {
  std::string model;             // as it was asked for
  std::string held_out;          // name of their file; empty: a few sentences
  int64_t compared_tokens = 0;   // of KL and agreement
  int64_t predicted_tokens = 0;  // of the loss
  CalibrationFacts calibration;  // of gptq; no tokens: nothing was calibrated
  std::vector<MethodRow> rows;   // the model itself, then the methods in the order asked for

  // Columns under each other, and what the numbers are of.
  std::string to_text() const;
  std::string to_markdown() const;
  std::string to_json() const;
};

// ConfigError unless the name ends in .json or .md and its folder is there: before the work begins.
void require_table_file(const std::string& path);
// In the form that the name's end says, complete or not at all. IoError, and the error above.
void write_table(const MethodTable& table, const std::string& path);

}  // namespace qlora::recipes
