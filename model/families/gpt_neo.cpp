// GPT-Neo and GPT-J (Black et al. 2021; Wang & Komatsuzaki 2021): the first with learned positions,
// scores that are not scaled, and windows in half of the layers; the second with attention and MLP
// side by side, and pairs of a head's first elements rotated.
#include "base/error.h"
#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/layer_norm_like.h"

namespace qlora::model {
namespace {

LlamaDefaults neo_defaults() {
  LlamaDefaults d = gpt_defaults();
  d.vocab_size = 50257;
  d.hidden_size = 2048;
  d.num_layers = 24;
  d.num_heads = 16;
  d.keys.layers = {{"num_layers", "num_hidden_layers"}};
  d.keys.heads = {{"num_heads", "num_attention_heads"}};
  return d;
}

// attention_types: [[["global", "local"], 12]] is twelve times the two kinds in turn.
std::vector<bool> read_local_layers(ConfigReader& config, int64_t num_layers) {
  const auto types = config.node({{"attention_types"}});
  config.note_read({"attention_layers"});
  if (!types) return layers_where(num_layers, [](int64_t layer) { return layer % 2 == 1; });
  std::vector<bool> local;
  for (const io::JsonNode& run : types->elements()) {
    const std::vector<io::JsonNode> pair = run.elements();
    if (pair.size() != 2) run.reject("a list of kinds and how often they come");
    const std::vector<io::JsonNode> kinds = pair[0].elements();
    for (int64_t times = pair[1].as_integer(1, num_layers); times > 0; --times)
      for (const io::JsonNode& kind : kinds) {
        const std::string name = kind.as_string();
        if (name != "global" && name != "local") kind.reject("global or local");
        local.push_back(name == "local");
      }
  }
  if (static_cast<int64_t>(local.size()) != num_layers)
    types->reject(fmt::format("the kind of each of the {} layers", num_layers));
  return local;
}

Architecture gpt_neo(ConfigReader& config) {
  Architecture a = llama_like("gpt_neo", read_llama_sizes(config, neo_defaults()));
  config.note_dropout({"resid_dropout", "embed_dropout"});
  config.note_read({"classifier_dropout"});
  note_summary_keys(config);
  use_layer_norms(a);
  set_attention_bias(a, false, true);
  use_plain_mlp(a, {"mlp.c_fc", ""}, {"mlp.c_proj", ""}, true);
  name_modules(a, {"transformer.", "wte", "h.", "ln_1", "ln_2", "attn.attention.out_proj", "ln_f"});
  leave_unrotated(a);
  a.embedding.positions = {{"transformer.wpe", ""}, a.max_positions};
  name_queries_keys_values(a, "attn.attention.");
  a.decoder.kinds[0].attention().shape.scale = 1;
  give_windows(a, config.integer({{"window_size"}}, 256, 1),
               read_local_layers(config, a.num_layers()));
  return a;
}

LlamaDefaults j_defaults() {
  LlamaDefaults d = gpt_defaults();
  d.vocab_size = 50400;
  d.num_layers = 28;
  d.num_heads = 16;
  d.tied_embeddings = false;
  d.keys = gpt2_size_keys();
  return d;
}

RotarySpec rotary_of(ConfigReader& config, int64_t head_dim) {
  const ConfigKey key{{"rotary_dim"}};
  if (config.is_spelled(key) && !config.has(key))
    fail<FormatError>("{} is null; models that rotate whole heads by it are not supported",
                      config.place_of(key));
  RotarySpec rotary{.rope = {}, .width = config.integer(key, 64), .pairs = true};
  validate(rotary, config.place());
  if (rotary.width > head_dim)
    fail<FormatError>("{} is {}; a head has only {} elements", config.place_of(key), rotary.width,
                      head_dim);
  return rotary;
}

Architecture gptj(ConfigReader& config) {
  Architecture a = llama_like("gptj", read_llama_sizes(config, j_defaults()));
  config.note_dropout({"attn_pdrop", "embd_pdrop", "resid_pdrop"});
  config.note_read({"n_ctx"});
  config.require("rotary", true);
  config.require("scale_attn_weights", true);
  note_summary_keys(config);
  use_layer_norms(a);
  set_attention_bias(a, false, false);
  use_plain_mlp(a, {"mlp.fc_in", ""}, {"mlp.fc_out", ""}, true);
  name_modules(a, {"transformer.", "wte", "h.", "ln_1", "", "attn.out_proj", "ln_f"});
  put_side_by_side(a, true);
  name_queries_keys_values(a, "attn.");
  a.rotaries = {rotary_of(config, a.block(0).attention().shape.head_dim)};
  a.head.bias = true;
  return a;
}

}  // namespace

Family gpt_neo_family() { return {.name = "gpt_neo", .model_types = {"gpt_neo"}, .read = gpt_neo}; }

Family gptj_family() { return {.name = "gptj", .model_types = {"gptj"}, .read = gptj}; }

}  // namespace qlora::model
