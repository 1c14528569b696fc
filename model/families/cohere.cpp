// Command R (Cohere 2024) and its successor: one LayerNorm without a bias for attention and MLP
// side by side, pairs of a head rotated, logits times a factor; the second sees a window in three
// of four layers, and rotates those alone.
#include "base/error.h"
#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/layer_norm_like.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

LlamaDefaults defaults_of(double theta) {
  return {.norm_eps = 1e-5,
          .rope = {.theta = theta, .pairs = true},
          .tied_embeddings = true,
          .max_positions = 8192,
          .norm_eps_key = layer_norm_eps("layer_norm_eps")};
}

Architecture cohere_like(const std::string& family, ConfigReader& config, double theta) {
  const LlamaSizes sizes = read_llama_sizes(config, defaults_of(theta));
  Architecture a = llama_like(family, sizes);
  use_layer_norms(a, false);
  put_side_by_side(a, true);
  a.logit_multiplier = config.positive({{"logit_scale"}, "logit_scale"}, 0.0625);
  return a;
}

Architecture cohere(ConfigReader& config) {
  Architecture a = cohere_like("cohere", config, 500000);
  if (!has_head_norms(config, "use_qk_norm")) return a;
  AttentionSpec& attention = a.decoder.kinds[0].attention();
  const auto norm = [&](const char* hugging_face, const char* gguf, int64_t heads) {
    NormSpec spec = a.decoder.final_norm;
    spec.names = {hugging_face, gguf};
    spec.size = attention.shape.head_dim;
    spec.groups = heads;
    return spec;
  };
  attention.q_norm = norm("self_attn.q_norm", "attn_q_norm", attention.shape.heads);
  attention.k_norm = norm("self_attn.k_norm", "attn_k_norm", attention.shape.kv_heads);
  return a;
}

Architecture cohere2(ConfigReader& config) {
  Architecture a = cohere_like("cohere2", config, 10000);
  config.note_read({"use_embedding_sharing", "use_parallel_embedding", "layer_switch"});
  config.require("rotary_pct", 1.0);
  config.require("use_gated_activation", true);
  config.require("use_parallel_block", true);
  config.require("use_qk_norm", false);
  config.require("position_embedding_type", {"rope_gptj"});
  config.require("order_of_interleaved_layers", {"local_attn_first"});
  const auto slides = read_layer_types_or_pattern(config, a.num_layers(), 4);
  const int64_t window = read_window(config, 4096, slides);
  a.decoder.kinds[0].attention().rotary = kNotRotated;
  edit_layers(a, slides, [window](BlockSpec& block) {
    block.attention().rotary = 0;
    block.attention().shape.window = window;
  });
  return a;
}

void write_cohere_like(ConfigWriter& config, const Architecture& a) {
  write_llama_sizes(config, a, defaults_of(a.rotaries.front().rope.theta));
  config.number("logit_scale", a.logit_multiplier);
}

void write_cohere(ConfigWriter& config, const Architecture& a) {
  config.model("cohere", "CohereForCausalLM");
  write_cohere_like(config, a);
  config.flag("use_qk_norm", a.block(0).attention().q_norm.present());
}

void write_cohere2(ConfigWriter& config, const Architecture& a) {
  config.model("cohere2", "Cohere2ForCausalLM");
  write_cohere_like(config, a);
  write_window(config, a);
  write_layer_types(config, a);
}

}  // namespace

Family cohere_family() {
  return {.name = "cohere",
          .model_types = {"cohere"},
          .gguf_architectures = {"command-r"},
          .read = cohere,
          .write = write_cohere};
}

Family cohere2_family() {
  return {.name = "cohere2",
          .model_types = {"cohere2"},
          .gguf_architectures = {"cohere2"},
          .read = cohere2,
          .write = write_cohere2};
}

}  // namespace qlora::model
