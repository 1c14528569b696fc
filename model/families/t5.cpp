// T5 (Raffel et al. 2020), T5 1.1 and FLAN-T5, mT5: an encoder that attends to all of a text, and a
// decoder whose second branch attends to what the encoder gives. Positions are biases by distance,
// the table of a stack's first block is used by all of its blocks, and scores are not scaled.
#include <cmath>

#include "base/error.h"
#include "model/families/families.h"
#include "model/families/llama_like.h"

namespace qlora::model {
namespace {

// Distances have no end: the last bucket takes all that are far.
constexpr int64_t kAnyLength = int64_t{1} << 20;

LlamaDefaults defaults(bool multilingual) {
  return {.head_dim = 64,
          .vocab_size = multilingual ? 250112 : 32128,
          .hidden_size = 512,
          .intermediate_size = multilingual ? 1024 : 2048,
          .num_layers = multilingual ? 8 : 6,
          .num_heads = multilingual ? 6 : 8,
          .norm_eps = 1e-6,
          .tied_embeddings = true,
          .max_positions = kAnyLength,
          .activation = "relu",
          .activation_key = {},
          .norm_eps_key = {{"layer_norm_epsilon"}},
          .rotates = false,
          .keys = {.hidden = {{"d_model"}},
                   .inner = {{"d_ff"}},
                   .layers = {{"num_layers"}},
                   .heads = {{"num_heads"}},
                   .kv_heads = {},
                   .head_dim = {{"d_kv"}},
                   .positions = {}}};
}

// "relu", "gated-gelu": an activation, and whether the MLP is gated.
void read_mlp(ConfigReader& config, bool multilingual, LlamaSizes& sizes, bool& gated) {
  const ConfigKey key = {{"feed_forward_proj"}};
  const std::string name = config.text(key, multilingual ? "gated-gelu" : "relu");
  gated = name.starts_with("gated-");
  // transformers takes the gated one for its tanh form, and only that one.
  if (name == "gated-gelu")
    sizes.activation = Activation::kGeluTanh;
  else if (name == "relu" || name == "gated-relu")
    sizes.activation = Activation::kRelu;
  else if (name == "silu" || name == "gated-silu")
    sizes.activation = Activation::kSilu;
  else if (name == "gelu")
    sizes.activation = Activation::kGelu;
  else if (name == "gelu_new" || name == "gated-gelu_new")
    sizes.activation = Activation::kGeluTanh;
  else
    fail<FormatError>(
        "{} must be relu, gelu, gelu_new, silu, or one of them behind 'gated-', found '{}'",
        config.place_of(key), name);
}

class Builder {
 public:
  Builder(const LlamaSizes& sizes, bool gated) : sizes_(sizes), gated_(gated) {}

  // Its last branch is the MLP, at `layer.1` or `layer.2`.
  StackSpec stack(const std::string& name, int64_t layers, bool decodes) const {
    BlockSpec block;
    block.branches.push_back(attention("SelfAttention", 0, decodes));
    if (decodes) block.branches.push_back(cross_attention());
    block.branches.push_back(mlp(decodes ? 2 : 1));
    StackSpec stack = stack_of(std::move(block), layers, norm(name + ".final_layer_norm"));
    stack.prefix = {name + ".block.", ""};
    return stack;
  }

 private:
  static std::string within(int index, const std::string& module) {
    return "layer." + std::to_string(index) + "." + module;
  }

  NormSpec norm(const std::string& module) const {
    return {.rule = {.kind = NormKind::kRms, .eps = sizes_.rms_norm_eps},
            .names = {module, ""},
            .size = sizes_.hidden_size};
  }

  static LinearSpec linear(const std::string& module, int64_t out, int64_t in) {
    return {{module, ""}, out, in};
  }

  Branch attention(const std::string& module, int index, bool causal) const {
    AttentionSpec a;
    a.shape = {.heads = sizes_.num_heads,
               .kv_heads = sizes_.num_heads,
               .head_dim = sizes_.head_dim,
               .scale = 1,
               .causal = causal,
               .relative_bias = true};
    const std::string path = within(index, module);
    for (const char* name : {".q", ".k", ".v"})
      a.in.push_back(linear(path + name, a.queries(), sizes_.hidden_size));
    a.out = linear(path + ".o", sizes_.hidden_size, a.queries());
    return {.before = norm(within(index, "layer_norm")), .after = {}, .mixer = std::move(a)};
  }

  Branch cross_attention() const {
    Branch branch = attention("EncDecAttention", 1, false);
    AttentionSpec& a = std::get<AttentionSpec>(branch.mixer);
    a.shape.relative_bias = false;
    a.shape.cross = true;
    a.of_encoder.assign(a.in.begin() + 1, a.in.end());
    a.in.resize(1);
    return branch;
  }

  Branch mlp(int index) const {
    MlpSpec m;
    m.inner = sizes_.intermediate_size;
    m.activation.kind = sizes_.activation;
    m.gated = gated_;
    const std::string path = within(index, "DenseReluDense.");
    for (const char* name : {"wi_0", "wi_1"})
      m.in.push_back(linear(path + name, m.inner, sizes_.hidden_size));
    if (!gated_) m.in = {linear(path + "wi", m.inner, sizes_.hidden_size)};
    m.out = linear(path + "wo", sizes_.hidden_size, m.inner);
    // Its inputs are large; transformers leaves it in 16 bit, too.
    m.out.never_quantized = true;
    return {.before = norm(within(index, "layer_norm")), .after = {}, .mixer = std::move(m)};
  }

  const LlamaSizes& sizes_;
  bool gated_;
};

// Of the table that a stack's first block has.
RelativeBiasSpec relative_bias(ConfigReader& config, const std::string& stack, int64_t heads) {
  RelativeBiasSpec bias;
  bias.module = stack + ".block.0.layer.0.SelfAttention.relative_attention_bias";
  bias.buckets = config.integer({{"relative_attention_num_buckets"}}, 32);
  bias.max_distance = config.integer({{"relative_attention_max_distance"}}, 128);
  bias.heads = heads;
  bias.bidirectional = stack == "encoder";
  const int64_t exact = bias.buckets / (bias.bidirectional ? 4 : 2);
  if (exact < 1 || bias.max_distance <= exact)
    fail<FormatError>(
        "{}: relative_attention_num_buckets must be 4 or more and relative_attention_max_distance "
        "above half of them, found {} and {}",
        config.place(), bias.buckets, bias.max_distance);
  return bias;
}

// T5 scales what its head reads if that is the embedding, by the configuration alone; mT5 never.
bool scales_outputs(ConfigReader& config, bool multilingual) {
  const bool said_tied = config.boolean({{"tie_word_embeddings"}}, true);
  const bool scales = config.boolean({{"scale_decoder_outputs"}}, said_tied);
  return scales && !multilingual;
}

Architecture read(ConfigReader& config, bool multilingual) {
  LlamaSizes sizes = read_llama_sizes(config, defaults(multilingual));
  bool gated = false;
  read_mlp(config, multilingual, sizes, gated);
  config.note_dropout({"dropout_rate"});
  config.note_read({"is_encoder_decoder", "dense_act_fn", "is_gated_act", "initializer_factor",
                    "classifier_dropout", "n_positions", "output_past"});
  if (!config.boolean({{"is_encoder_decoder"}}, true))
    fail<FormatError>(
        "{}: is_encoder_decoder is false; this version reads whole models of T5's kind",
        config.place());
  const ConfigKey decoder_layers = {{"num_decoder_layers"}};
  const int64_t num_decoder_layers = config.integer(decoder_layers, sizes.num_layers);
  if (num_decoder_layers < 1 || num_decoder_layers > 4096)
    fail<FormatError>("{} must be between 1 and 4096, got {}", config.place_of(decoder_layers),
                      num_decoder_layers);
  Architecture a = llama_like(multilingual ? "mt5" : "t5", sizes);
  a.rotaries.clear();
  a.embedding.names = {"shared", ""};
  a.embedding_copies = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"};
  a.head.names = {"lm_head", ""};
  const Builder builder(sizes, gated);
  a.encoder = builder.stack("encoder", sizes.num_layers, false);
  a.decoder = builder.stack("decoder", num_decoder_layers, true);
  a.encoder.relative_bias = relative_bias(config, "encoder", sizes.num_heads);
  a.decoder.relative_bias = relative_bias(config, "decoder", sizes.num_heads);
  if (scales_outputs(config, multilingual))
    a.logit_multiplier = 1 / std::sqrt(static_cast<double>(a.hidden_size));
  a.decoder_tokens.pad = static_cast<int32_t>(config.integer({{"pad_token_id"}}, 0));
  a.decoder_tokens.start =
      static_cast<int32_t>(config.integer({{"decoder_start_token_id"}}, a.decoder_tokens.pad));
  return a;
}

Architecture t5(ConfigReader& config) { return read(config, false); }
Architecture mt5(ConfigReader& config) { return read(config, true); }

}  // namespace

Family t5_family() { return {.name = "t5", .model_types = {"t5"}, .read = t5}; }
Family mt5_family() { return {.name = "mt5", .model_types = {"mt5"}, .read = mt5}; }

}  // namespace qlora::model
