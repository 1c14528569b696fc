// Phi-3, 3.5, 4 and 4-mini (Abdin et al. 2024): Llama's block with queries, keys and values from
// one matrix, gate and up from another.
#include <cmath>

#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

Architecture phi3(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, {.norm_eps = 1e-5,
                                                     .rope = {.yarn_is_longrope = true},
                                                     .attention_bias_key = "",
                                                     .max_positions = 4096});
  config.note_dropout({"embd_pdrop", "resid_pdrop"});
  // Of Phi-4-mini's own program.
  config.require("lm_head_bias", false);
  config.require("full_attn_mod", 1.0);
  config.require("interpolate_factor", 1.0);
  Architecture a = llama_like("phi3", sizes);
  fuse_qkv(a, {"self_attn.qkv_proj", "attn_qkv"});
  fuse_gate_up(a, {"mlp.gate_up_proj", "ffn_up"});
  give_windows(a, read_window(config, 0), std::vector<bool>(a.num_layers(), true));
  return a;
}

// The dictionary has these three keys alone where the factor is the usual one: older versions of
// transformers take no other.
void write_longrope(ConfigWriter& config, const Architecture& a, const RopeConfig& rope) {
  ConfigWriter dictionary;
  dictionary.text("type", "longrope");
  dictionary.numbers("short_factor", rope.short_factor);
  dictionary.numbers("long_factor", rope.long_factor);
  const double original = rope.original_max_positions;
  const double usual =
      longrope_attention_factor(static_cast<double>(a.max_positions) / original, original);
  if (std::abs(rope.attention_factor - usual) > 1e-6 * usual)
    dictionary.number("attention_factor", rope.attention_factor);
  config.object("rope_scaling", dictionary);
  config.integer("original_max_position_embeddings", static_cast<int64_t>(original));
}

void write(ConfigWriter& config, const Architecture& a) {
  config.model("phi3", "Phi3ForCausalLM");
  write_llama_sizes(config, a);
  if (const RopeConfig& rope = a.rotaries.front().rope; rope.type == "longrope")
    write_longrope(config, a, rope);
  write_window(config, a);
}

}  // namespace

Family phi3_family() {
  return {.name = "phi3",
          .model_types = {"phi3"},
          .gguf_architectures = {"phi3"},
          .read = phi3,
          .write = write};
}

}  // namespace qlora::model
