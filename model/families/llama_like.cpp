#include "model/families/llama_like.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "base/warn_once.h"

namespace qlora::model {
namespace {

// In GGUF what the embedding has; its metadata may say another number.
int64_t read_vocabulary(ConfigReader& config, int64_t hidden_size, int64_t otherwise) {
  const ConfigKey key{{"vocab_size"}, "vocab_size"};
  if (!config.gguf()) return config.size(key, otherwise);
  const io::TensorView* embedding = config.gguf()->find("token_embd.weight");
  if (!embedding || embedding->shape.size() != 2)
    fail<FormatError>("{}: there must be a tensor token_embd.weight [vocabulary, {}]",
                      config.place(), hidden_size);
  const int64_t rows = embedding->shape[0];
  if (const int64_t said = config.integer(key, rows); said != rows)
    log::warning_once(
        "{}: {}vocab_size is {}, but token_embd.weight has {} rows; the rows are used",
        config.place(), config.gguf_prefix(), said, rows);
  return rows;
}

bool read_tied(ConfigReader& config, bool otherwise) {
  if (config.gguf()) return config.gguf()->find("output.weight") == nullptr;
  return config.boolean({{"tie_word_embeddings"}}, otherwise);
}

int64_t read_head_dim(ConfigReader& config, const LlamaSizes& sizes, const SizeKeys& keys,
                      int64_t otherwise) {
  const int64_t heads = std::max<int64_t>(sizes.num_heads, 1);
  if (config.has(keys.head_dim) || otherwise > 0) return config.size(keys.head_dim, otherwise);
  config.node(keys.head_dim);
  if (sizes.hidden_size % heads != 0)
    fail<FormatError>("{} is {}; it must be a multiple of {}, {}", config.place_of(keys.hidden),
                      sizes.hidden_size, keys.heads.hugging_face.front(), heads);
  return sizes.hidden_size / heads;
}

// A key of GGUF that must say what is computed in any case.
void require_equal(ConfigReader& config, const char* key, int64_t wanted, const char* what) {
  const int64_t found = config.integer({{}, key}, wanted);
  if (found != wanted)
    fail<FormatError>("{}: {}{} is {}, and {} is {}; this version computes equal ones only",
                      config.place(), config.gguf_prefix(), key, found, what, wanted);
}

// `read` is the key in families that have it, else empty: transformers ignores it there.
bool read_bias(ConfigReader& config, const char* key, const std::string& read, bool otherwise) {
  const bool said = config.boolean({{key}}, otherwise);
  if (!read.empty()) return said;
  if (said)
    log::warning_once(
        "{} is true; models of this family have no such biases, in transformers neither",
        config.place_of({{key}}));
  return false;
}

void read_gguf_yarn(ConfigReader& config, double factor, RopeConfig& rope) {
  rope.type = "yarn";
  rope.factor = factor;
  rope.original_max_positions =
      config.number({{}, "rope.scaling.original_context_length", true}, 0);
  rope.beta_fast = config.number({{}, "rope.scaling.yarn_beta_fast"}, 32);
  rope.beta_slow = config.number({{}, "rope.scaling.yarn_beta_slow"}, 1);
  const double all_dims = config.number({{}, "rope.scaling.yarn_log_multiplier"}, 0);
  rope.attention_factor = yarn_attention_factor(factor, all_dims != 0 ? 1 : 0, all_dims) *
                          config.number({{}, "rope.scaling.yarn_attn_factor"}, 1);
}

RotarySpec read_gguf_rotary(ConfigReader& config, int64_t head_dim, const RopeDefaults& defaults) {
  const std::string& prefix = config.gguf_prefix();
  RopeConfig rope;
  rope.theta = config.number({{}, "rope.freq_base"}, defaults.theta);
  // Without a type a factor is linear, and one by its older name counts where there is no other, as
  // in llama.cpp.
  const std::string scaling = config.text({{}, "rope.scaling.type"}, "linear");
  const double older = config.number({{}, "rope.scale_linear"}, 0);
  const double named = config.number({{}, "rope.scaling.factor"}, 0);
  const double factor = named != 0 ? named : older;
  if (named != 0 && older != 0 && named != older && (scaling == "linear" || scaling == "yarn"))
    log::warning_once(
        "{}: {}rope.scaling.factor is {} and {}rope.scale_linear is {}; the former "
        "is used, as in llama.cpp",
        config.place(), prefix, named, prefix, older);
  if (scaling == "linear") {
    const bool is_said = config.gguf()->has(prefix + "rope.scaling.type");
    if (is_said || (factor != 0 && factor != 1)) rope.type = scaling;
    if (factor != 0) rope.factor = factor;
  } else if (scaling == "yarn") {
    read_gguf_yarn(config, factor, rope);
  } else if (scaling != "none" && scaling != "longrope") {
    fail<FormatError>(
        "{}: {}rope.scaling.type '{}' is not supported; this version knows linear, yarn and "
        "longrope",
        config.place(), prefix, scaling);
  }
  // Of cos and sin, whatever the type; longrope, whose lists are tensors, takes it with them.
  rope.attention_factor *= config.number({{}, "rope.scaling.attn_factor"}, 1);
  if (defaults.whole_heads)
    require_equal(config, "rope.dimension_count", head_dim, "the size of a head");
  return {.rope = rope,
          .width = config.integer({{}, "rope.dimension_count"}, head_dim),
          .pairs = defaults.pairs};
}

RotarySpec whole_if_unset(RotarySpec rotary, int64_t head_dim) {
  if (rotary.width == 0) rotary.width = head_dim;
  return rotary;
}

LinearSpec linear(const char* hugging_face, const char* gguf, int64_t out, int64_t in, bool bias,
                  const std::string& bias_key) {
  return {{hugging_face, gguf}, out, in, bias, bias_key};
}

NormSpec norm(const char* hugging_face, const char* gguf, const LlamaSizes& s) {
  return {.rule = {.kind = NormKind::kRms, .eps = s.rms_norm_eps},
          .names = {hugging_face, gguf},
          .size = s.hidden_size};
}

AttentionSpec attention(const LlamaSizes& s) {
  AttentionSpec a;
  a.shape = {.heads = s.num_heads,
             .kv_heads = s.num_kv_heads,
             .head_dim = s.head_dim,
             .scale = inverse_root(s.head_dim)};
  a.rotary = 0;
  const std::string& key = s.attention_bias_key;
  a.in = {linear("self_attn.q_proj", "attn_q", a.queries(), s.hidden_size, s.attention_bias, key),
          linear("self_attn.k_proj", "attn_k", a.keys(), s.hidden_size, s.attention_bias, key),
          linear("self_attn.v_proj", "attn_v", a.keys(), s.hidden_size, s.attention_bias, key)};
  a.out =
      linear("self_attn.o_proj", "attn_output", s.hidden_size, a.queries(), s.attention_bias, key);
  return a;
}

MlpSpec mlp(const LlamaSizes& s) {
  MlpSpec m;
  m.inner = s.intermediate_size;
  m.activation.kind = s.activation;
  const std::string& key = s.mlp_bias_key;
  m.in = {linear("mlp.gate_proj", "ffn_gate", m.inner, s.hidden_size, s.mlp_bias, key),
          linear("mlp.up_proj", "ffn_up", m.inner, s.hidden_size, s.mlp_bias, key)};
  m.out = linear("mlp.down_proj", "ffn_down", s.hidden_size, m.inner, s.mlp_bias, key);
  return m;
}

}  // namespace

void LlamaSizes::validate(const std::string& where, const SizeKeys& keys) const {
  const auto need = [&](const char* field, int64_t value, int64_t most) {
    if (value < 1 || value > most)
      fail<FormatError>("{}: {} must be between 1 and {}, got {}", where, field, most, value);
  };
  const auto spelled = [](const ConfigKey& key, const char* otherwise) {
    return key.hugging_face.empty() ? otherwise : key.hugging_face.front();
  };
  need("vocab_size", vocab_size, 1 << 24);
  need(spelled(keys.hidden, "hidden_size"), hidden_size, 1 << 20);
  need(spelled(keys.inner, "intermediate_size"), intermediate_size, 1 << 22);
  need(spelled(keys.layers, "num_hidden_layers"), num_layers, 4096);
  need(spelled(keys.heads, "num_attention_heads"), num_heads, 65536);
  need(spelled(keys.kv_heads, "num_key_value_heads"), num_kv_heads, 65536);
  need(spelled(keys.head_dim, "head_dim"), head_dim, 65536);
  if (num_heads % num_kv_heads != 0)
    fail<FormatError>("{}: {} ({}) must be a multiple of {} ({})", where,
                      spelled(keys.heads, "num_attention_heads"), num_heads,
                      spelled(keys.kv_heads, "num_key_value_heads"), num_kv_heads);
  if (rotates && head_dim % 2 != 0)
    fail<FormatError>("{}: head_dim must be even for RoPE, got {}", where, head_dim);
  if (!(rms_norm_eps > 0 && rms_norm_eps < 1))
    fail<FormatError>("{}: rms_norm_eps must be between 0 and 1, got {}", where, rms_norm_eps);
  if (rotates) model::validate(whole_if_unset(rotary, head_dim), where);
}

Activation read_activation(ConfigReader& config, const ConfigKey& key, const char* otherwise) {
  static const std::vector<std::pair<const char*, Activation>> known = {
      {"silu", Activation::kSilu},          {"swish", Activation::kSilu},
      {"gelu", Activation::kGelu},          {"gelu_new", Activation::kGeluTanh},
      {"gelu_fast", Activation::kGeluTanh}, {"gelu_pytorch_tanh", Activation::kGeluTanh},
      {"relu", Activation::kRelu},          {"relu2", Activation::kRelu2}};
  const std::string name = config.text(key, otherwise);
  for (const auto& [spelling, activation] : known)
    if (name == spelling) return activation;
  std::vector<std::string> spellings;
  for (const auto& [spelling, activation] : known) spellings.emplace_back(spelling);
  fail<FormatError>("{} must be one of {}, found '{}'", config.place_of(key),
                    fmt::join(spellings, ", "), name);
}

LlamaSizes read_llama_sizes(ConfigReader& config, const LlamaDefaults& defaults) {
  const SizeKeys& keys = defaults.keys;
  LlamaSizes sizes;
  sizes.activation = read_activation(config, defaults.activation_key, defaults.activation);
  sizes.hidden_size = config.size(keys.hidden, defaults.hidden_size);
  sizes.vocab_size = read_vocabulary(config, sizes.hidden_size, defaults.vocab_size);
  sizes.intermediate_size = defaults.intermediate_size > 0
                                ? config.size(keys.inner, defaults.intermediate_size)
                                : config.integer(keys.inner, 4 * sizes.hidden_size);
  sizes.num_layers = config.size(keys.layers, defaults.num_layers);
  sizes.num_heads = config.size(keys.heads, defaults.num_heads);
  sizes.num_kv_heads = config.json() && defaults.num_kv_heads > 0
                           ? config.size(keys.kv_heads, defaults.num_kv_heads)
                           : config.integer(keys.kv_heads, sizes.num_heads);
  sizes.head_dim = read_head_dim(config, sizes, keys, config.json() ? defaults.head_dim : 0);
  sizes.max_positions = config.integer(keys.positions, defaults.max_positions, 1);
  sizes.rms_norm_eps = config.number(defaults.norm_eps_key, defaults.norm_eps);
  sizes.attention_bias =
      read_bias(config, "attention_bias", defaults.attention_bias_key, defaults.attention_bias);
  sizes.attention_bias_key = defaults.attention_bias_key;
  sizes.mlp_bias = read_bias(config, "mlp_bias", defaults.mlp_bias_key, false);
  sizes.mlp_bias_key = defaults.mlp_bias_key;
  sizes.tied_embeddings = read_tied(config, defaults.tied_embeddings);
  require_equal(config, "attention.value_length", sizes.head_dim, "the size of a key's head");
  sizes.rotates = defaults.rotates;
  if (!defaults.rotates) {
    sizes.validate(config.place(), keys);
    return sizes;
  }
  if (config.json()) {
    config.note_read({"rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor",
                      "original_max_position_embeddings"});
    if (defaults.reads_rope)
      sizes.rotary =
          read_rope_keys(*config.json(), {sizes.head_dim, sizes.max_positions}, defaults.rope);
  } else {
    sizes.rotary = read_gguf_rotary(config, sizes.head_dim, defaults.rope);
  }
  sizes.validate(config.place(), keys);
  return sizes;
}

Architecture llama_like(const std::string& family, const LlamaSizes& sizes) {
  BlockSpec block;
  block.branches.resize(2);
  block.branches[0].before = norm("input_layernorm", "attn_norm", sizes);
  block.branches[0].mixer = attention(sizes);
  block.branches[1].before = norm("post_attention_layernorm", "ffn_norm", sizes);
  block.branches[1].mixer = mlp(sizes);
  Architecture a;
  a.family = family;
  a.vocab_size = sizes.vocab_size;
  a.hidden_size = a.embedding.width = sizes.hidden_size;
  a.max_positions = sizes.max_positions;
  a.decoder =
      stack_of(std::move(block), sizes.num_layers, norm("model.norm", "output_norm", sizes));
  a.head = linear("lm_head", "output", sizes.vocab_size, sizes.hidden_size, false, "");
  a.tied_embeddings = sizes.tied_embeddings;
  a.rotaries = {whole_if_unset(sizes.rotary, sizes.head_dim)};
  return a;
}

NormSpec head_norm(const char* hugging_face, const char* gguf, const LlamaSizes& sizes) {
  NormSpec spec = norm(hugging_face, gguf, sizes);
  spec.size = sizes.head_dim;
  return spec;
}

void fuse_qkv(Architecture& architecture, const TensorNames& names) {
  AttentionSpec& a = architecture.decoder.kinds[0].attention();
  LinearSpec fused = a.in[0];
  fused.names = names;
  fused.out = a.queries() + 2 * a.keys();
  a.in = {fused};
  a.shape.layout = heads_in_order(a.shape.heads, a.shape.kv_heads, a.shape.head_dim);
}

void fuse_gate_up(Architecture& architecture, const TensorNames& names) {
  MlpSpec& mlp = architecture.decoder.kinds[0].mlp();
  LinearSpec fused = mlp.in[0];
  fused.names = names;
  fused.out = 2 * mlp.inner;
  mlp.in = {fused};
}

void keep_rotary_pairs(Architecture& architecture) {
  for (BlockSpec& block : architecture.decoder.kinds) {
    std::vector<LinearSpec>& in = block.attention().in;
    in[0].gguf_rows = in[1].gguf_rows = RowOrder::kRotaryPairs;
  }
}

}  // namespace qlora::model
