// RoPE as a config.json describes it, read as transformers 5 reads it
// (RotaryEmbeddingConfigMixin.convert_rope_params_to_dict): rope_scaling goes before
// rope_parameters, rope_theta and partial_rotary_factor beside them are for a dictionary that has
// none.
#pragma once

#include <string>
#include <vector>

#include "io/json.h"
#include "model/rope_config.h"

namespace qlora::model {

struct RopeSizes {
  int64_t head_dim = 0;
  int64_t max_positions = 2048;  // max_position_embeddings
};

// What a family's files may leave out, or say in their own words.
struct RopeDefaults {
  double theta = 10000.0;
  double partial_factor = 1.0;                        // of a head, from its start
  bool whole_heads = false;                           // another partial factor is refused
  bool pairs = false;                                 // RotarySpec's; no file says it
  bool yarn_is_longrope = false;                      // Phi-3's older files
  std::string theta_key = "rope_theta";               // beside the dictionary
  std::string partial_key = "partial_rotary_factor";  // beside the dictionary
  std::vector<std::string> read_elsewhere = {};       // keys within that the family itself reads
  std::string when_absent = "";                       // the dictionary, in JSON, of files without
};

// Warns, once a file, where two keys disagree, and of keys of the dictionary that are not read.
// FormatError naming the key for a scaling that is not known and for values that make no
// frequencies.
RotarySpec read_rope_keys(const io::JsonNode& config, const RopeSizes& sizes,
                          const RopeDefaults& defaults = {});

// For families whose sliding layers turn otherwise (Gemma 3, OLMo 3).
struct LayerRotaries {
  RotarySpec full, sliding;
};
// The same where rope_parameters is {"full_attention": {...}, "sliding_attention": {...}}; in older
// files rope_scaling is that of full layers, and the theta of each kind stands beside it.
LayerRotaries read_layer_rope_keys(const io::JsonNode& config, const RopeSizes& sizes,
                                   const RopeDefaults& full, const RopeDefaults& sliding);

// A number of the dictionary that counts (RopeDefaults::read_elsewhere).
double rope_number(const io::JsonNode& config, const RopeDefaults& defaults, const char* key,
                   double otherwise);

}  // namespace qlora::model
