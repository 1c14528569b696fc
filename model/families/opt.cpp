// OPT (Zhang et al. 2022): learned positions and ReLU. Its 350m is another model: norms of the
// stream after each branch, none at the end, and embeddings narrower than the stream.
#include "base/error.h"
#include "model/families/families.h"
#include "model/families/layer_norm_like.h"

namespace qlora::model {
namespace {

constexpr const char* kBase = "model.decoder.";
constexpr int64_t kPositionOffset = 2;  // rows of the table that no position has

LlamaDefaults defaults() {
  return {.vocab_size = 50272,
          .hidden_size = 768,
          .intermediate_size = 3072,
          .num_layers = 12,
          .num_heads = 12,
          .norm_eps = 1e-5,
          .tied_embeddings = true,
          .attention_bias_key = "",
          .activation = "relu",
          .activation_key = {{"activation_function"}},
          .norm_eps_key = {},
          .rotates = false,
          .keys = {.inner = {{"ffn_dim"}}, .kv_heads = {}, .head_dim = {}}};
}

void norm_after_branches(Architecture& a) {
  for (Branch& branch : a.decoder.kinds[0].branches) {
    branch.sum = branch.before;
    branch.before = {};
  }
}

// Of embeddings that are not as wide as the stream.
void project(ConfigReader& config, Architecture& a) {
  const ConfigKey key{{"word_embed_proj_dim"}};
  const int64_t width = config.integer(key, a.hidden_size);
  if (width < 1 || width > a.hidden_size)
    fail<FormatError>("{} must be between 1 and hidden_size, {}; found {}", config.place_of(key),
                      a.hidden_size, width);
  if (width == a.hidden_size) return;
  a.embedding.width = a.head.in = width;
  a.embedding.projection = {{std::string(kBase) + "project_in", ""}, a.hidden_size, width};
  a.head_projection = {{std::string(kBase) + "project_out", ""}, width, a.hidden_size};
}

Architecture opt(ConfigReader& config) {
  Architecture a = llama_like("opt", read_llama_sizes(config, defaults()));
  config.note_dropout({"dropout", "activation_dropout", "layerdrop"});
  config.note_read({"init_std"});
  const bool bias = config.boolean({{"enable_bias"}}, true);
  use_layer_norms(a);
  set_attention_bias(a, bias, bias);
  use_plain_mlp(a, {"fc1", ""}, {"fc2", ""}, bias);
  name_modules(a, {kBase, "embed_tokens", "layers.", "self_attn_layer_norm", "final_layer_norm",
                   "self_attn.out_proj", "final_layer_norm"});
  leave_unrotated(a);
  a.embedding.positions = {{std::string(kBase) + "embed_positions", ""},
                           a.max_positions + kPositionOffset,
                           kPositionOffset};
  if (!config.boolean({{"layer_norm_elementwise_affine"}}, true)) {
    for (Branch& branch : a.decoder.kinds[0].branches)
      branch.before.weight = branch.before.bias = false;
    a.decoder.final_norm.weight = a.decoder.final_norm.bias = false;
  }
  const bool norms_before = config.boolean({{"do_layer_norm_before"}}, true);
  if (config.boolean({{"_remove_final_layer_norm"}}, false) || !norms_before)
    a.decoder.final_norm = {};
  if (!norms_before) norm_after_branches(a);
  project(config, a);
  return a;
}

}  // namespace

Family opt_family() { return {.name = "opt", .model_types = {"opt"}, .read = opt}; }

}  // namespace qlora::model
