// The trained model as one Hugging Face directory of 16-bit weights: adapters merged into the base.
//
//   W = round(dequantize(W_base) + scaling B A)      sum in fp32, rounded once
#pragma once

#include <string>

#include "data/tokenizer.h"
#include "model/causal_lm.h"

namespace qlora::exporting {

// Writes config.json, the weights (in shards of at most 5 GB) and the tokenizer into `directory`,
// which must exist, one tensor in memory at a time. `source` is where the base came from: its
// config.json is kept where it has one. dtype: bf16, fp16 or fp32. Error if a merged weight is not
// finite (for fp16: too large).
void write_merged(const std::string& directory, const model::CausalLm& model,
                  const data::Tokenizer& tokenizer, const std::string& source,
                  at::ScalarType dtype);

}  // namespace qlora::exporting
