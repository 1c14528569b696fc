// GPT-2 (Radford et al. 2019): learned positions, LayerNorms, and matrices that files hold as
// [in, out].
#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/layer_norm_like.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

LlamaDefaults defaults() {
  LlamaDefaults d = gpt_defaults();
  d.vocab_size = 50257;
  d.hidden_size = 768;
  d.num_layers = d.num_heads = 12;
  d.max_positions = 1024;
  d.keys = gpt2_size_keys();
  return d;
}

void scale_scores(ConfigReader& config, Architecture& a) {
  if (!config.boolean({{"scale_attn_weights"}}, true))
    a.decoder.kinds[0].attention().shape.scale = 1;
  const ConfigKey by_layer{{"scale_attn_by_inverse_layer_idx"}};
  if (!config.boolean(by_layer, false)) return;
  edit_each_layer(a, config.place_of(by_layer), [](BlockSpec& block, int64_t layer) {
    block.attention().shape.scale /= static_cast<float>(layer + 1);
  });
}

Architecture gpt2(ConfigReader& config) {
  Architecture a = llama_like("gpt2", read_llama_sizes(config, defaults()));
  config.note_dropout({"attn_pdrop", "embd_pdrop", "resid_pdrop"});
  config.note_read({"n_ctx", "reorder_and_upcast_attn"});
  note_summary_keys(config);
  use_layer_norms(a);
  set_attention_bias(a, true, true);
  fuse_qkv(a, {"attn.c_attn", "attn_qkv"});
  use_plain_mlp(a, {"mlp.c_fc", "ffn_up"}, {"mlp.c_proj", "ffn_down"}, true);
  name_modules(a, {"transformer.", "wte", "h.", "ln_1", "ln_2", "attn.c_proj", "ln_f"});
  leave_unrotated(a);
  a.embedding.positions = {{"transformer.wpe", "position_embd"}, a.max_positions};
  a.decoder.kinds[0].edit_each_linear([](LinearSpec& linear) { linear.stored_by_inputs = true; });
  scale_scores(config, a);
  return a;
}

void write(ConfigWriter& config, const Architecture& a) {
  config.model("gpt2", "GPT2LMHeadModel");
  write_llama_sizes(config, a, defaults());
}

}  // namespace

Family gpt2_family() {
  return {.name = "gpt2",
          .model_types = {"gpt2"},
          .gguf_architectures = {"gpt2"},
          .read = gpt2,
          .write = write};
}

}  // namespace qlora::model
