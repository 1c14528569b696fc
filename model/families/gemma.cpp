// Gemma 1 to 3 (Gemma team 2024, 2024, 2025): embeddings times the root of the hidden size, norms
// that multiply by 1 + weight; from the second on norms of what each branch gives, and windows in
// some layers; the second caps scores and logits.
#include <cmath>

#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

NormSpec plus_one(NormSpec norm) {
  norm.rule.offset = 1;
  norm.gguf_adds_offset = true;
  return norm;
}

Architecture gemma_like(const std::string& family, const LlamaSizes& sizes) {
  Architecture a = llama_like(family, sizes);
  a.embedding.multiplier = std::sqrt(static_cast<double>(a.hidden_size));
  for (Branch& branch : a.decoder.kinds[0].branches) branch.before = plus_one(branch.before);
  a.decoder.final_norm = plus_one(a.decoder.final_norm);
  return a;
}

LlamaDefaults first_defaults() {
  return {.num_kv_heads = 16,
          .head_dim = 256,
          .tied_embeddings = true,
          .max_positions = 8192,
          .activation = "gelu_pytorch_tanh"};
}

// "gelu" of the first Gemma's files means the tanh form.
Architecture gemma(ConfigReader& config) {
  LlamaSizes sizes = read_llama_sizes(config, first_defaults());
  if (sizes.activation == Activation::kGelu) sizes.activation = Activation::kGeluTanh;
  return gemma_like("gemma", sizes);
}

// Of the second and the third.
void add_output_norms(BlockSpec& block) {
  Branch &attention = block.attention_branch(), &mlp = block.mlp_branch();
  const auto named = [](NormSpec norm, const char* hugging_face, const char* gguf) {
    norm.names = {hugging_face, gguf};
    return norm;
  };
  attention.after = named(attention.before, "post_attention_layernorm", "post_attention_norm");
  mlp.before = named(mlp.before, "pre_feedforward_layernorm", "ffn_norm");
  mlp.after = named(mlp.before, "post_feedforward_layernorm", "post_ffw_norm");
}

float scale_of(ConfigReader& config, const LlamaSizes& sizes) {
  const double width = config.json() ? 256 : static_cast<double>(sizes.head_dim);
  return static_cast<float>(std::pow(config.positive({{"query_pre_attn_scalar"}}, width), -0.5));
}

// Null is none.
double read_cap(ConfigReader& config, const char* name, double absent) {
  const ConfigKey key{{name}, name};
  return config.is_spelled(key) ? config.positive_or_none(key) : absent;
}

LlamaDefaults later_defaults() {
  LlamaDefaults defaults{.num_kv_heads = 4,
                         .head_dim = 256,
                         .tied_embeddings = true,
                         .max_positions = 8192,
                         .activation = "gelu_pytorch_tanh",
                         .activation_key = {{"hidden_activation"}}};
  return defaults;
}

Architecture gemma2(ConfigReader& config) {
  const LlamaSizes sizes = read_llama_sizes(config, later_defaults());
  config.note_read({"hidden_act", "sliding_window_size"});  // transformers reads neither here
  Architecture a = gemma_like("gemma2", sizes);
  BlockSpec& block = a.decoder.kinds[0];
  add_output_norms(block);
  block.attention().shape.scale = scale_of(config, sizes);
  block.attention().shape.softcap = read_cap(config, "attn_logit_softcapping", 50);
  a.logit_softcap = read_cap(config, "final_logit_softcapping", 30);
  const auto even = layers_where(a.num_layers(), [](int64_t layer) { return layer % 2 == 0; });
  const auto slides = read_layer_types(config, a.num_layers()).value_or(even);
  give_windows(a, read_window(config, 4096, slides), slides);
  return a;
}

Architecture gemma3(ConfigReader& config) {
  LlamaDefaults defaults = later_defaults();
  defaults.max_positions = 131072;
  // Released files leave these out.
  defaults.vocab_size = 262208;
  defaults.hidden_size = 2304;
  defaults.intermediate_size = 9216;
  defaults.num_layers = 26;
  defaults.num_heads = 8;
  defaults.reads_rope = config.gguf() != nullptr;
  defaults.rope.theta = 1e6;
  const LlamaSizes sizes = read_llama_sizes(config, defaults);
  config.note_read({"hidden_act", "attn_logit_softcapping", "rope_local_base_freq"});
  config.require("use_bidirectional_attention", false);
  Architecture a = gemma_like("gemma3", sizes);
  BlockSpec& block = a.decoder.kinds[0];
  add_output_norms(block);
  AttentionSpec& attention = block.attention();
  attention.shape.scale = scale_of(config, sizes);
  attention.q_norm = plus_one(head_norm("self_attn.q_norm", "attn_q_norm", sizes));
  attention.k_norm = plus_one(head_norm("self_attn.k_norm", "attn_k_norm", sizes));
  a.logit_softcap = read_cap(config, "final_logit_softcapping", 0);
  if (config.json()) {
    const LayerRotaries rotaries =
        read_layer_rope_keys(*config.json(), {sizes.head_dim, sizes.max_positions}, {.theta = 1e6},
                             {.theta = 1e4, .theta_key = "rope_local_base_freq"});
    a.rotaries = {rotaries.full, rotaries.sliding};
  } else {
    RotarySpec sliding{.rope = {}, .width = sizes.head_dim};
    sliding.rope.theta = config.positive({{}, "rope.freq_base_swa"}, 1e4);
    a.rotaries.push_back(sliding);
  }
  const auto slides = read_layer_types_or_pattern(config, a.num_layers(), 6);
  const int64_t window = read_window(config, 4096, slides);
  edit_layers(a, slides, [window](BlockSpec& block) {
    block.attention().shape.window = window;
    block.attention().rotary = 1;
  });
  return a;
}

void write_gemma(ConfigWriter& config, const Architecture& a) {
  config.model("gemma", "GemmaForCausalLM");
  write_llama_sizes(config, a, first_defaults());
}

void write_later(ConfigWriter& config, const Architecture& a) {
  write_llama_sizes(config, a, later_defaults());
  write_query_scalar(config, a);
  config.number_or_null("attn_logit_softcapping", a.block(0).attention().shape.softcap);
  config.number_or_null("final_logit_softcapping", a.logit_softcap);
  write_window(config, a);
  write_layer_types(config, a);
}

void write_gemma2(ConfigWriter& config, const Architecture& a) {
  config.model("gemma2", "Gemma2ForCausalLM");
  write_later(config, a);
}

void write_gemma3(ConfigWriter& config, const Architecture& a) {
  config.model("gemma3_text", "Gemma3ForCausalLM");
  write_later(config, a);
  config.number("rope_local_base_freq", a.rotaries.at(1).rope.theta);
}

}  // namespace

Family gemma_family() {
  return {.name = "gemma",
          .model_types = {"gemma"},
          .gguf_architectures = {"gemma"},
          .read = gemma,
          .write = write_gemma};
}

Family gemma2_family() {
  return {.name = "gemma2",
          .model_types = {"gemma2"},
          .gguf_architectures = {"gemma2"},
          .read = gemma2,
          .write = write_gemma2};
}

Family gemma3_family() {
  return {.name = "gemma3",
          .model_types = {"gemma3_text", "gemma3"},
          .gguf_architectures = {"gemma3"},
          .read = gemma3,
          .write = write_gemma3};
}

}  // namespace qlora::model
