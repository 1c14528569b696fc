// The trained model as one Hugging Face directory of 16-bit weights: adapters merged into the base.
//
//   W = round(W_base + scaling B A)                               sum in fp32, rounded once
//   W = round(m / |W_base + scaling B A| (W_base + scaling B A))  DoRA, |.| of each row
//
// W_base is what the quantized base stands for: the model that was trained. Or it is the weight
// before quantization, read from where that lies: a model without the quantization's errors, which
// is another one, as the adapter has learnt on them (DoRA's norm is then of these weights).
//
// What was trained whole or by the row takes the place of the base's. Tied embeddings that training
// made two are written as two, and config.json says so.
#pragma once

#include <string>

#include "data/chat_template.h"
#include "data/tokenizer.h"
#include "export/weight_files.h"
#include "model/causal_lm.h"
#include "model/weight_source.h"

namespace qlora::exporting {

// Writes config.json, the weights (in shards of at most `shard_bytes`) and the tokenizer into
// `directory`, which must exist, one tensor in memory at a time. `chat_template`: the one trained
// with, null if there is none. `source` is where the base came from: its config.json is kept where
// it has one. dtype: bf16, fp16 or fp32. Every tensor that was not trained is the original's where
// there is one, of the model's shape. ConfigError for weights that do not stand for a matrix
// (experts); Error if a merged weight is not finite (for fp16: too large).
void write_merged(const std::string& directory, const model::CausalLm& model,
                  const data::Tokenizer& tokenizer, const data::ChatTemplate* chat_template,
                  const std::string& source, at::ScalarType dtype,
                  model::WeightSource* original = nullptr, int64_t shard_bytes = kShardBytes);

}  // namespace qlora::exporting
