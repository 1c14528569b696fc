// StableLM 2 (Bellagente et al. 2024): Llama's block with LayerNorms and a quarter of each head
// rotated; attention and MLP may stand side by side.
#include "base/error.h"
#include "model/families/families.h"
#include "model/families/layer_norm_like.h"

namespace qlora::model {
namespace {

Architecture stablelm(ConfigReader& config) {
  const LlamaSizes sizes =
      read_llama_sizes(config, {.num_kv_heads = 32,
                                .norm_eps = 1e-5,
                                .rope = {.partial_factor = 0.25},
                                .max_positions = 4096,
                                .norm_eps_key = layer_norm_eps("layer_norm_eps")});
  config.note_read({"hidden_dropout", "rope_pct"});
  const ConfigKey head_norms{{"qk_layernorm"}};
  if (config.boolean(head_norms, false))
    fail<FormatError>("{} must be false: norms of each head's queries and keys are not read here",
                      config.place_of(head_norms));
  const ConfigKey parallel{{"use_parallel_residual"}, "use_parallel_residual"};
  Architecture a = llama_like("stablelm", sizes);
  use_layer_norms(a);
  set_attention_bias(a, config.boolean({{"use_qkv_bias"}}, false), false);
  if (config.boolean(parallel, false)) put_side_by_side(a, true);
  return a;
}

}  // namespace

Family stablelm_family() {
  return {.name = "stablelm",
          .model_types = {"stablelm"},
          .gguf_architectures = {"stablelm"},
          .read = stablelm};
}

}  // namespace qlora::model
