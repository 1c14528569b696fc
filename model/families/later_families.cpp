#include "model/families/later_families.h"

#include <algorithm>
#include <vector>

namespace qlora::model {
namespace {

struct LaterFamilies {
  const char* missing;
  std::vector<std::string> model_types, gguf_architectures;
};

const std::vector<LaterFamilies>& later_families() {
  static const std::vector<LaterFamilies> all = {
      {"multi-head latent attention (MLA: keys and values that are made of one narrow vector)",
       {"deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "kimi_k2", "longcat_flash",
        "minicpm3"},
       {"deepseek2", "minicpm3"}},
      {"layers of linear attention (the gated delta rule) between those of attention",
       {"kimi_linear", "olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text",
        "qwen3_next"},
       {"kimi-linear", "qwen35", "qwen35moe", "qwen3next"}},
      {"state-space layers (Mamba)",
       {"bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "mamba", "mamba2",
        "nemotron_h", "zamba", "zamba2"},
       {"falcon-h1", "granitehybrid", "jamba", "mamba", "mamba2", "nemotron_h", "nemotron_h_moe"}},
      {"layers of recurrence or convolution in place of attention",
       {"lfm2", "lfm2_moe", "recurrent_gemma", "rwkv"},
       {"lfm2", "lfm2moe", "rwkv6", "rwkv7"}},
      {"several residual streams (AltUp), low-rank branches (Laurel), embeddings of each layer, "
       "and "
       "keys and values that layers share",
       {"gemma3n", "gemma3n_text"},
       {"gemma3n"}},
      {"heads whose size differs by layer, embeddings of each layer, and keys and values that "
       "layers share",
       {"gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text"},
       {"gemma4"}},
      {"attention within chunks, and experts whose weight multiplies what they read",
       {"llama4", "llama4_text"},
       {"llama4"}}};
  return all;
}

std::string missing_for(std::vector<std::string> LaterFamilies::*names, const std::string& name) {
  for (const LaterFamilies& later : later_families())
    if (std::ranges::find(later.*names, name) != (later.*names).end()) return later.missing;
  return "";
}

}  // namespace

std::string missing_for_model_type(const std::string& model_type) {
  return missing_for(&LaterFamilies::model_types, model_type);
}

std::string missing_for_gguf(const std::string& architecture) {
  return missing_for(&LaterFamilies::gguf_architectures, architecture);
}

}  // namespace qlora::model
