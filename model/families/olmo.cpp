// OLMo 1 to 3 (Groeneveld et al. 2024; OLMo team 2024, 2025). The first has norms without weights;
// the others norm what a branch gives, not what it reads, and all queries and keys of a row
// together.
#include "base/error.h"
#include "model/families/expert_like.h"
#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/llama_config.h"
#include "model/file_facts.h"

namespace qlora::model {
namespace {

void take_weight(NormSpec& norm) {
  norm.rule = {.kind = NormKind::kLayer, .eps = 1e-5};
  norm.weight = false;
}

LlamaDefaults defaults_of_one() { return {.norm_eps_key = {{}}}; }

Architecture olmo(ConfigReader& config) {
  Architecture a = llama_like("olmo", read_llama_sizes(config, defaults_of_one()));
  keep_rotary_pairs(a);
  config.note_read({}, {"attention.layer_norm_epsilon"});
  BlockSpec& block = a.decoder.kinds[0];
  for (Branch& branch : block.branches) take_weight(branch.before);
  take_weight(a.decoder.final_norm);
  block.attention().clamp = config.positive_or_none({{"clip_qkv"}, "attention.clamp_kqv"});
  return a;
}

NormSpec row_norm(const char* hugging_face, const char* gguf, int64_t size, double eps) {
  return {
      .rule = {.kind = NormKind::kRms, .eps = eps}, .names = {hugging_face, gguf}, .size = size};
}

// All queries of a row together, all keys.
void norm_whole_rows(AttentionSpec& a, const LlamaSizes& sizes) {
  a.q_norm = row_norm("self_attn.q_norm", "attn_q_norm", a.queries(), sizes.rms_norm_eps);
  a.k_norm = row_norm("self_attn.k_norm", "attn_k_norm", a.keys(), sizes.rms_norm_eps);
}

Architecture olmo_of_outputs(const std::string& family, const LlamaSizes& sizes) {
  Architecture a = llama_like(family, sizes);
  BlockSpec& block = a.decoder.kinds[0];
  Branch &attention = block.attention_branch(), &mlp = block.mlp_branch();
  attention.before = mlp.before = {};
  attention.after = row_norm("post_attention_layernorm", "post_attention_norm", sizes.hidden_size,
                             sizes.rms_norm_eps);
  mlp.after = row_norm("post_feedforward_layernorm", "post_ffw_norm", sizes.hidden_size,
                       sizes.rms_norm_eps);
  norm_whole_rows(block.attention(), sizes);
  return a;
}

// GGUF files of the third say that they are of the second. Layers that slide are not scaled.
void read_gguf_windows(ConfigReader& config, Architecture& a) {
  const int64_t window = read_window(config, 0);
  const ConfigKey pattern{{}, "attention.sliding_window_pattern"};
  if (window == 0 || !config.has(pattern)) return;
  std::vector<bool> slides;
  for (const int64_t slide : config.integers(pattern)) slides.push_back(slide != 0);
  if (static_cast<int64_t>(slides.size()) != a.num_layers())
    fail<FormatError>("{} must have a value for each of the {} layers, found {}",
                      config.place_of(pattern), a.num_layers(), slides.size());
  RotarySpec sliding{.rope = {}, .width = a.rotaries.front().width};
  sliding.rope.theta = a.rotaries.front().rope.theta;
  a.rotaries.push_back(sliding);
  edit_layers(a, slides, [window](BlockSpec& block) {
    block.attention().shape.window = window;
    block.attention().rotary = 1;
  });
}

Architecture olmo2(ConfigReader& config) {
  Architecture a = olmo_of_outputs("olmo2", read_llama_sizes(config, {.norm_eps = 1e-5}));
  if (config.gguf()) read_gguf_windows(config, a);
  return a;
}

Architecture olmo3(ConfigReader& config) {
  const LlamaSizes sizes =
      read_llama_sizes(config, {.norm_eps = 1e-5, .max_positions = 65536, .reads_rope = false});
  Architecture a = olmo_of_outputs("olmo3", sizes);
  const RopeDefaults full{.theta = 5e5};
  RopeDefaults sliding = full;
  sliding.theta_key = "";  // transformers does not read the one beside the dictionary for these
  const LayerRotaries rotaries =
      read_layer_rope_keys(*config.json(), {sizes.head_dim, sizes.max_positions}, full, sliding);
  const auto fourth = layers_where(a.num_layers(), [](int64_t i) { return (i + 1) % 4 != 0; });
  const auto slides = read_layer_types(config, a.num_layers()).value_or(fourth);
  const int64_t window = read_window(config, 4096, slides);
  a.rotaries = {rotaries.full, rotaries.sliding};
  edit_layers(a, slides, [window](BlockSpec& block) {
    block.attention().shape.window = window;
    block.attention().rotary = 1;
  });
  return a;
}

// The first one's order of norms, with experts.
Architecture olmoe(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, {.vocab_size = 50304,
                                                     .hidden_size = 2048,
                                                     .intermediate_size = 2048,
                                                     .num_layers = 16,
                                                     .num_heads = 16,
                                                     .norm_eps = 1e-5,
                                                     .max_positions = 4096});
  const ExpertsSpec experts = experts_of(
      sizes, read_expert_sizes(
                 config, sizes,
                 {.experts = 64, .active = 8, .renormalise = false, .reads_norm_topk = true}));
  Architecture a = llama_like("olmoe", sizes);
  AttentionSpec& attention = a.decoder.kinds[0].attention();
  norm_whole_rows(attention, sizes);
  attention.clamp = config.positive_or_none({{"clip_qkv"}, "attention.clamp_kqv"});
  use_experts(a, experts);
  a.targets_mean_experts = true;
  return a;
}

void write_olmo(ConfigWriter& config, const Architecture& a) {
  config.model("olmo", "OlmoForCausalLM");
  write_llama_sizes(config, a, defaults_of_one());
  config.number_or_null("clip_qkv", a.block(0).attention().clamp);
}

ConfigWriter rope_parameters(const RopeConfig& rope) {
  ConfigWriter parameters = rope_dictionary(rope);
  parameters.number("rope_theta", rope.theta);
  return parameters;
}

void write_olmo3(ConfigWriter& config, const Architecture& a) {
  config.model("olmo3", "Olmo3ForCausalLM");
  write_llama_sizes(config, a, {.rotates = false});
  write_window(config, a);
  write_layer_types(config, a);
  ConfigWriter by_layer;
  by_layer.object("full_attention", rope_parameters(a.rotaries.at(0).rope));
  by_layer.object("sliding_attention", rope_parameters(a.rotaries.at(1).rope));
  config.object("rope_parameters", by_layer);
}

// GGUF files of the third are of the second's architecture.
void write_olmo2(ConfigWriter& config, const Architecture& a) {
  if (smallest_window(a) > 0) return write_olmo3(config, a);
  config.model("olmo2", "Olmo2ForCausalLM");
  write_llama_sizes(config, a);
}

void write_olmoe(ConfigWriter& config, const Architecture& a) {
  config.model("olmoe", "OlmoeForCausalLM");
  write_llama_sizes(config, a);
  write_expert_counts(config, a, "num_experts");
  config.flag("norm_topk_prob", first_experts(a)->routing.renormalise);
  config.number_or_null("clip_qkv", a.block(0).attention().clamp);
}

}  // namespace

Family olmoe_family() {
  return {.name = "olmoe",
          .model_types = {"olmoe"},
          .gguf_architectures = {"olmoe"},
          .read = olmoe,
          .write = write_olmoe};
}

Family olmo_family() {
  return {.name = "olmo",
          .model_types = {"olmo"},
          .gguf_architectures = {"olmo"},
          .read = olmo,
          .write = write_olmo};
}

Family olmo2_family() {
  return {.name = "olmo2",
          .model_types = {"olmo2"},
          .gguf_architectures = {"olmo2"},
          .read = olmo2,
          .write = write_olmo2};
}

Family olmo3_family() {
  return {.name = "olmo3", .model_types = {"olmo3"}, .read = olmo3, .gguf_written_as = "olmo2"};
}

}  // namespace qlora::model
