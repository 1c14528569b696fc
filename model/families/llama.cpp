// Llama 1 to 3 and what shares their block: SmolLM2, TinyLlama, Falcon 3.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/families/families.h"
#include "model/families/llama_like.h"

namespace qlora::model {
namespace {

Architecture read(ConfigReader& config) {
  config.note_read({}, {"expert_used_count"});
  if (config.integer({{}, "expert_count"}, 0) > 0) return read_mixtral(config);
  const LlamaSizes sizes = read_llama_sizes(config, {.rope = {.whole_heads = true}});
  Architecture architecture = llama_like("llama", sizes);
  keep_rotary_pairs(architecture);
  return architecture;
}

nlohmann::ordered_json to_hugging_face(const Architecture& a, const std::string& dtype) {
  const BlockSpec& block = a.block(0);
  const AttentionSpec& attention = block.attention();
  const MlpSpec& mlp = *block.branches[1].mlp();
  const RopeConfig& rope = a.rotaries[0].rope;
  nlohmann::ordered_json json = {{"architectures", {"LlamaForCausalLM"}},
                                 {"model_type", "llama"},
                                 {"attention_bias", attention.out.bias},
                                 {"attention_dropout", 0.0},
                                 {"head_dim", attention.shape.head_dim},
                                 {"hidden_act", "silu"},
                                 {"hidden_size", a.hidden_size},
                                 {"initializer_range", 0.02},
                                 {"intermediate_size", mlp.inner},
                                 {"max_position_embeddings", a.max_positions},
                                 {"mlp_bias", mlp.out.bias},
                                 {"num_attention_heads", attention.shape.heads},
                                 {"num_hidden_layers", a.num_layers()},
                                 {"num_key_value_heads", attention.shape.kv_heads},
                                 {"rms_norm_eps", block.branches[0].before.rule.eps},
                                 {"rope_theta", rope.theta},
                                 {"rope_scaling", nullptr},
                                 {"tie_word_embeddings", a.tied_embeddings},
                                 {"torch_dtype", dtype},
                                 {"use_cache", true},
                                 {"vocab_size", a.vocab_size}};
  if (!rope.divisors.empty()) {
    throw ConfigError(
        "the model's RoPE frequencies (rope_freqs.weight) are none that a config.json can name; "
        "export the adapter instead");
  }
  json["rope_scaling"] = rope_scaling_of(rope);
  return json;
}

}  // namespace

Family llama_family() {
  return {.name = "llama",
          .model_types = {"llama"},
          .gguf_architectures = {"llama"},
          .read = read,
          .to_hugging_face = to_hugging_face};
}

}  // namespace qlora::model
