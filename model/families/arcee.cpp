// AFM (Arcee 2025): Llama's block with an MLP without a gate, down(relu²(up x)).
#include "model/families/families.h"
#include "model/families/layer_norm_like.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

LlamaDefaults defaults() {
  return {.hidden_size = 2560,
          .intermediate_size = 18432,
          .norm_eps = 1e-5,
          .rope = {.whole_heads = true},
          .mlp_bias_key = "mlp_bias",
          .max_positions = 4096,
          .activation = "relu2"};
}

Architecture arcee(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, defaults());
  Architecture a = llama_like("arcee", sizes);
  keep_rotary_pairs(a);
  use_plain_mlp(a, {"mlp.up_proj", "ffn_up"}, {"mlp.down_proj", "ffn_down"}, sizes.mlp_bias);
  return a;
}

void write(ConfigWriter& config, const Architecture& a) {
  config.model("arcee", "ArceeForCausalLM");
  write_llama_sizes(config, a, defaults());
  config.flag("mlp_bias", a.block(0).mlp().out.bias);
}

}  // namespace

Family arcee_family() {
  return {.name = "arcee",
          .model_types = {"arcee"},
          .gguf_architectures = {"arcee"},
          .read = arcee,
          .write = write};
}

}  // namespace qlora::model
