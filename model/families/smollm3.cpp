// SmolLM3 (Bakouch et al. 2025): Llama's block, not rotated in every fourth layer (Yang et al.
// 2025, "NoPE").
#include "base/error.h"
#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

// no_rope_layers: 0 for each layer that is not rotated.
std::vector<bool> layers_without_rotation(ConfigReader& config, int64_t num_layers) {
  const auto listed = config.node({{"no_rope_layers"}});
  const int64_t interval = config.integer({{"no_rope_layer_interval"}}, 4, listed ? 0 : 1);
  if (!listed)
    return layers_where(num_layers,
                        [interval](int64_t layer) { return (layer + 1) % interval == 0; });
  std::vector<bool> still;
  for (const io::JsonNode& rotated : listed->elements())
    still.push_back(rotated.as_integer(0, 1) == 0);
  if (static_cast<int64_t>(still.size()) != num_layers)
    fail<FormatError>("{} must have a number for each of the {} layers, found {}", listed->place(),
                      num_layers, still.size());
  return still;
}

Architecture smollm3(ConfigReader& config) {
  Architecture a = llama_like("smollm3", read_llama_sizes(config, {.num_kv_heads = 4,
                                                                   .rope = {.theta = 2e6},
                                                                   .tied_embeddings = true,
                                                                   .mlp_bias_key = "mlp_bias",
                                                                   .max_positions = 32768}));
  keep_rotary_pairs(a);
  config.note_read({"max_window_layers"});  // released files have it; transformers does not read it
  const int64_t window = read_used_window(config, 0);
  const auto types = read_layer_types(config, a.num_layers());
  const std::vector<bool> still = layers_without_rotation(config, a.num_layers());
  if (types && window > 0 && *types != still)
    fail<FormatError>(
        "{}: layer_types must let those layers slide that no_rope_layers does not rotate",
        config.place());
  edit_layers(a, still, [&](BlockSpec& block) {
    block.attention().rotary = kNotRotated;
    block.attention().shape.window = window;
  });
  return a;
}

void write(ConfigWriter& config, const Architecture& a) {
  config.model("smollm3", "SmolLM3ForCausalLM");
  write_llama_sizes(config, a);
  std::vector<int64_t> rotated;
  for (int64_t layer = 0; layer < a.num_layers(); ++layer)
    rotated.push_back(a.block(layer).attention().rotary == kNotRotated ? 0 : 1);
  config.integers("no_rope_layers", rotated);
}

}  // namespace

Family smollm3_family() {
  return {.name = "smollm3",
          .model_types = {"smollm3"},
          .gguf_architectures = {"smollm3"},
          .read = smollm3,
          .write = write};
}

}  // namespace qlora::model
