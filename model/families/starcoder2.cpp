// StarCoder2 (Lozhkov et al. 2024): LayerNorms, biases, and an MLP without a gate.
#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/layer_norm_like.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

LlamaDefaults defaults() {
  return {.num_kv_heads = 2,
          .norm_eps = 1e-5,
          .tied_embeddings = true,
          .attention_bias_key = "",
          .max_positions = 4096,
          .activation = "gelu_pytorch_tanh",
          .norm_eps_key = layer_norm_eps("norm_epsilon")};
}

Architecture starcoder2(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, defaults());
  config.note_dropout({"residual_dropout", "embedding_dropout"});
  // Those of the program that the models were trained with; transformers reads none of them.
  config.note_read({"activation_function", "attention_softmax_in_fp32", "layer_norm_epsilon",
                    "scale_attention_softmax_in_fp32"});
  config.require("scale_attn_weights", true);
  config.require("mlp_type", {"default"});
  config.require("norm_type", {"layer_norm"});
  const bool bias = config.boolean({{"use_bias"}}, true);
  Architecture a = llama_like("starcoder2", sizes);
  use_layer_norms(a);
  set_attention_bias(a, bias, bias);
  use_plain_mlp(a, {"mlp.c_fc", "ffn_up"}, {"mlp.c_proj", "ffn_down"}, bias);
  give_windows(a, read_window(config, 0),
               std::vector<bool>(static_cast<size_t>(a.num_layers()), true));
  return a;
}

void write(ConfigWriter& config, const Architecture& a) {
  config.model("starcoder2", "Starcoder2ForCausalLM");
  write_llama_sizes(config, a, defaults());
  config.flag("use_bias", a.block(0).attention().out.bias);
  write_window(config, a);
}

}  // namespace

Family starcoder2_family() {
  return {.name = "starcoder2",
          .model_types = {"starcoder2"},
          .gguf_architectures = {"starcoder2"},
          .read = starcoder2,
          .write = write};
}

}  // namespace qlora::model
