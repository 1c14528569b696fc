// Llama 1 to 3 and what shares their block: SmolLM2, TinyLlama, Falcon 3.
#include "model/families/families.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

Architecture read(ConfigReader& config) {
  config.note_read({}, {"expert_used_count"});
  if (config.integer({{}, "expert_count"}, 0) > 0) return read_mixtral(config);
  const LlamaSizes sizes =
      read_llama_sizes(config, {.rope = {.whole_heads = true}, .mlp_bias_key = "mlp_bias"});
  Architecture architecture = llama_like("llama", sizes);
  keep_rotary_pairs(architecture);
  return architecture;
}

void write(ConfigWriter& config, const Architecture& a) {
  config.model("llama", "LlamaForCausalLM");
  write_llama_sizes(config, a);
  config.flag("mlp_bias", a.block(0).mlp().out.bias);
}

}  // namespace

Family llama_family() {
  return {.name = "llama",
          .model_types = {"llama"},
          .gguf_architectures = {"llama"},
          .read = read,
          .write = write};
}

}  // namespace qlora::model
