// Phi-3, 3.5, 4 and 4-mini (Abdin et al. 2024): Llama's block with queries, keys and values from
// one matrix, gate and up from another.
#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/llama_like.h"

namespace qlora::model {
namespace {

Architecture phi3(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(
      config, {.norm_eps = 1e-5, .rope = {.yarn_is_longrope = true}, .max_positions = 4096});
  config.note_dropout({"embd_pdrop", "resid_pdrop"});
  Architecture a = llama_like("phi3", sizes);
  fuse_qkv(a, {"self_attn.qkv_proj", "attn_qkv"});
  fuse_gate_up(a, {"mlp.gate_up_proj", "ffn_up"});
  give_windows(a, read_window(config, 0), std::vector<bool>(a.num_layers(), true));
  return a;
}

}  // namespace

Family phi3_family() {
  return {.name = "phi3", .model_types = {"phi3"}, .gguf_architectures = {"phi3"}, .read = phi3};
}

}  // namespace qlora::model
