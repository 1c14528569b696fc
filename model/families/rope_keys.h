// RoPE as a config.json describes it, read as transformers 5 reads it
// (RotaryEmbeddingConfigMixin.convert_rope_params_to_dict): rope_scaling goes before
// rope_parameters, rope_theta beside them is for a dictionary that has none.
#pragma once

#include "io/json.h"
#include "model/model_config.h"

namespace qlora::model {

// `max_positions`: max_position_embeddings. Warns, once a file, where two keys disagree, and of
// keys of the dictionary that are not read. FormatError naming the key for a scaling that is not
// known.
RopeConfig read_rope_keys(const io::JsonNode& config, int64_t max_positions);

}  // namespace qlora::model
