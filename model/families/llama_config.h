// The inverse of llama_like.h: the keys of a config.json that describe a model.
#pragma once

#include "model/families/config_writer.h"
#include "model/families/llama_like.h"

namespace qlora::model {

// What read_llama_sizes() reads, as `defaults` spells it: sizes, the activation, the epsilon of
// norms, RoPE with its scaling, whether embeddings are tied, and which layers have biases.
void write_llama_sizes(ConfigWriter& config, const Architecture& architecture,
                       const LlamaDefaults& defaults = {});

// sliding_window, null where no layer has one.
void write_window(ConfigWriter& config, const Architecture& architecture);
// layer_types by which layers have a window.
void write_layer_types(ConfigWriter& config, const Architecture& architecture);
// How many experts there are, under `count_key`, and how many of them a token uses.
void write_expert_counts(ConfigWriter& config, const Architecture& architecture,
                         const char* count_key);
// query_pre_attn_scalar: scores are divided by its root.
void write_query_scalar(ConfigWriter& config, const Architecture& architecture);

}  // namespace qlora::model
