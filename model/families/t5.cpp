// T5 (Raffel et al. 2020), T5 1.1 and FLAN-T5, mT5: an encoder that attends to all of a text, and a
// decoder whose second branch attends to what the encoder gives. Positions are biases by distance,
// the table of a stack's first block is used by all of its blocks, and scores are not scaled.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

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
          .attention_bias_key = "",
          .max_positions = kAnyLength,
          .activation = "relu",
          .activation_key = {},
          .norm_eps_key = {{"layer_norm_epsilon"}, "attention.layer_norm_rms_epsilon", true},
          .rotates = false,
          .keys = {.hidden = {{"d_model"}, "embedding_length", true},
                   .inner = {{"d_ff"}, "feed_forward_length", true},
                   .layers = {{"num_layers"}, "block_count", true},
                   .heads = {{"num_heads"}, "attention.head_count", true},
                   .kv_heads = {{}, "attention.head_count_kv"},
                   .head_dim = {{"d_kv"}, "attention.key_length"},
                   .positions = {}}};
}

// "relu", "gated-gelu": an activation, and whether the MLP is gated.
void read_mlp(ConfigReader& config, bool multilingual, LlamaSizes& sizes, bool& gated) {
  // llama.cpp, too, knows two kinds and tells them by the gate.
  if (const io::GgufFile* file = config.gguf()) {
    gated = file->find("enc.blk.0.ffn_gate.weight") != nullptr;
    sizes.activation = gated ? Activation::kGeluTanh : Activation::kRelu;
    return;
  }
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
  StackSpec stack(const std::string& name, const std::string& gguf, int64_t layers,
                  bool decodes) const {
    BlockSpec block;
    block.branches.push_back(attention("SelfAttention", 0, "attn_", decodes));
    if (decodes) block.branches.push_back(cross_attention());
    block.branches.push_back(mlp(decodes ? 2 : 1));
    StackSpec stack =
        stack_of(std::move(block), layers, norm(name + ".final_layer_norm", gguf + ".output_norm"));
    stack.prefix = {name + ".block.", gguf + ".blk."};
    return stack;
  }

 private:
  static std::string within(int index, const std::string& module) {
    return "layer." + std::to_string(index) + "." + module;
  }

  NormSpec norm(const std::string& module, const std::string& gguf) const {
    return {.rule = {.kind = NormKind::kRms, .eps = sizes_.rms_norm_eps},
            .names = {module, gguf},
            .size = sizes_.hidden_size};
  }

  static LinearSpec linear(const std::string& module, const std::string& gguf, int64_t out,
                           int64_t in) {
    return {{module, gguf}, out, in};
  }

  Branch attention(const std::string& module, int index, const std::string& gguf,
                   bool causal) const {
    AttentionSpec a;
    a.shape = {.heads = sizes_.num_heads,
               .kv_heads = sizes_.num_heads,
               .head_dim = sizes_.head_dim,
               .scale = 1,
               .causal = causal,
               .relative_bias = true};
    const std::string path = within(index, module + ".");
    for (const char* name : {"q", "k", "v"})
      a.in.push_back(linear(path + name, gguf + name, a.queries(), sizes_.hidden_size));
    a.out = linear(path + "o", gguf + "o", sizes_.hidden_size, a.queries());
    return {.before = norm(within(index, "layer_norm"), gguf + "norm"),
            .after = {},
            .mixer = std::move(a)};
  }

  Branch cross_attention() const {
    Branch branch = attention("EncDecAttention", 1, "cross_attn_", false);
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
    const auto in = [&](const char* name, const char* gguf) {
      m.in.push_back(linear(path + name, gguf, m.inner, sizes_.hidden_size));
    };
    if (gated_) in("wi_0", "ffn_gate");
    in(gated_ ? "wi_1" : "wi", "ffn_up");
    m.out = linear(path + "wo", "ffn_down", sizes_.hidden_size, m.inner);
    // Its inputs are large; transformers leaves it in 16 bit, too.
    m.out.never_quantized = true;
    return {.before = norm(within(index, "layer_norm"), "ffn_norm"),
            .after = {},
            .mixer = std::move(m)};
  }

  const LlamaSizes& sizes_;
  bool gated_;
};

// Of the table that a stack's first block has.
RelativeBiasSpec relative_bias(ConfigReader& config, const std::string& stack, int64_t heads) {
  RelativeBiasSpec bias;
  bias.module = stack + ".block.0.layer.0.SelfAttention.relative_attention_bias";
  bias.gguf_module = (stack == "encoder" ? "enc" : "dec") + std::string(".blk.0.attn_rel_b");
  bias.buckets = config.integer(
      {{"relative_attention_num_buckets"}, "attention.relative_buckets_count", true}, 32);
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

// T5 scales what its head reads if that is the embedding, by the configuration alone; mT5 never. In
// GGUF files, which say nothing of it, T5's are those without a head of their own.
bool scales_outputs(ConfigReader& config, bool multilingual, bool tied) {
  if (config.gguf()) return tied;
  const bool said_tied = config.boolean({{"tie_word_embeddings"}}, true);
  const bool scales = config.boolean({{"scale_decoder_outputs"}}, said_tied);
  return scales && !multilingual;
}

// Old checkpoints of T5 hold their embedding as the head, too, and so do files made of them.
bool has_embedding_for_head(const io::GgufFile& file) {
  const io::TensorView *head = file.find("output.weight"),
                       *embedding = file.find("token_embd.weight");
  return head && embedding && !head->bytes.empty() && head->dtype == embedding->dtype &&
         std::ranges::equal(head->bytes, embedding->bytes);
}

void check_gguf(const io::GgufFile& file, const LlamaSizes& sizes) {
  if (sizes.num_kv_heads != sizes.num_heads)
    fail<FormatError>(
        "{}: t5.attention.head_count_kv is {}; it must be the number of heads, {}, in this version",
        file.path(), sizes.num_kv_heads, sizes.num_heads);
  for (const char* table : {"enc.blk.1.attn_rel_b.weight", "dec.blk.1.attn_rel_b.weight"})
    if (file.find(table))
      fail<FormatError>(
          "{} has a tensor {}: every block has biases of its own (UMT5); this version reads models "
          "of T5's kind whose blocks share those of the first",
          file.path(), table);
}

void read_gguf_only(ConfigReader& config, LlamaSizes& sizes) {
  check_gguf(*config.gguf(), sizes);
  sizes.tied_embeddings |= has_embedding_for_head(*config.gguf());
  config.note_read({}, {"context_length", "attention.layer_norm_epsilon"});
}

int64_t read_decoder_layers(ConfigReader& config, int64_t otherwise) {
  const ConfigKey key = {{"num_decoder_layers"}, "decoder_block_count"};
  const int64_t layers = config.integer(key, otherwise);
  if (layers < 1 || layers > 4096)
    fail<FormatError>("{} must be between 1 and 4096, got {}", config.place_of(key), layers);
  return layers;
}

// Both are rows of the embedding.
DecoderTokens read_decoder_tokens(ConfigReader& config, int64_t vocab_size) {
  const int64_t last = vocab_size - 1;
  const int64_t pad = config.gguf()
                          ? config.gguf()->integer_or("tokenizer.ggml.padding_token_id", 0, last, 0)
                          : config.integer({{"pad_token_id"}}, 0, 0, last);
  const int64_t start =
      config.integer({{"decoder_start_token_id"}, "decoder_start_token_id"}, pad, 0, last);
  return {.start = static_cast<int32_t>(start), .pad = static_cast<int32_t>(pad)};
}

Architecture read(ConfigReader& config, bool multilingual) {
  LlamaSizes sizes = read_llama_sizes(config, defaults(multilingual));
  if (config.gguf()) read_gguf_only(config, sizes);
  bool gated = false;
  read_mlp(config, multilingual, sizes, gated);
  config.note_dropout({"dropout_rate"});
  config.note_read({"is_encoder_decoder", "dense_act_fn", "is_gated_act", "initializer_factor",
                    "classifier_dropout", "n_positions", "output_past"});
  if (!config.boolean({{"is_encoder_decoder"}}, true))
    fail<FormatError>(
        "{}: is_encoder_decoder is false; this version reads whole models of T5's kind",
        config.place());
  Architecture a = llama_like(multilingual ? "mt5" : "t5", sizes);
  a.rotaries.clear();
  a.embedding.names = {"shared", "token_embd"};
  a.embedding_copies = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"};
  a.head.names = {"lm_head", "output"};
  const Builder builder(sizes, gated);
  a.encoder = builder.stack("encoder", "enc", sizes.num_layers, false);
  a.decoder = builder.stack("decoder", "dec", read_decoder_layers(config, sizes.num_layers), true);
  a.encoder.relative_bias = relative_bias(config, "encoder", sizes.num_heads);
  a.decoder.relative_bias = relative_bias(config, "decoder", sizes.num_heads);
  if (scales_outputs(config, multilingual, sizes.tied_embeddings))
    a.logit_multiplier = 1 / std::sqrt(static_cast<double>(a.hidden_size));
  a.decoder_tokens = read_decoder_tokens(config, sizes.vocab_size);
  return a;
}

// Of a GGUF file's model, which is T5's to transformers whatever it was made of.
void write(ConfigWriter& config, const Architecture& a) {
  const BlockSpec& block = a.encoder.block(0);
  const AttentionShape& attention = block.attention().shape;
  const MlpSpec& mlp = block.mlp();
  config.model("t5", "T5ForConditionalGeneration");
  config.flag("is_encoder_decoder", true);
  config.integer("vocab_size", a.vocab_size);
  config.integer("d_model", a.hidden_size);
  config.integer("d_kv", attention.head_dim);
  config.integer("d_ff", mlp.inner);
  config.integer("num_heads", attention.heads);
  config.integer("num_layers", a.encoder.num_layers());
  config.integer("num_decoder_layers", a.decoder.num_layers());
  config.text("feed_forward_proj", mlp.gated ? "gated-gelu" : "relu");
  config.number("layer_norm_epsilon", a.decoder.final_norm.rule.eps);
  config.integer("relative_attention_num_buckets", a.decoder.relative_bias.buckets);
  config.integer("relative_attention_max_distance", a.decoder.relative_bias.max_distance);
  config.flag("tie_word_embeddings", a.tied_embeddings);
  config.integer("decoder_start_token_id", a.decoder_tokens.start);
  config.integer("pad_token_id", a.decoder_tokens.pad);
}

Architecture t5(ConfigReader& config) { return read(config, false); }
Architecture mt5(ConfigReader& config) { return read(config, true); }

}  // namespace

Family t5_family() {
  return {.name = "t5",
          .model_types = {"t5"},
          .gguf_architectures = {"t5"},
          .read = t5,
          .write = write};
}
Family mt5_family() {
  return {.name = "mt5", .model_types = {"mt5"}, .read = mt5, .gguf_written_as = "t5"};
}

}  // namespace qlora::model
