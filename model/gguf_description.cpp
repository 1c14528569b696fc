#include "model/gguf_description.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "base/error.h"
#include "base/warn_once.h"
#include "lora/expert_names.h"
#include "model/families/family.h"
#include "model/families/llama_like.h"
#include "model/file_facts.h"
#include "model/gguf_names.h"
#include "model/same_computation.h"

namespace qlora::model {
namespace {

template <size_t n>
bool is_one_of(const std::string& family, const std::array<std::string_view, n>& names) {
  return std::ranges::find(names, family) != names.end();
}

// What T5's files say of a context that has no end, as llama.cpp's converter has it: llama.cpp
// makes room for as many tokens.
constexpr int64_t kContextOfT5 = 512;

// Whose GGUF files name a window; all but the last two in any case.
constexpr std::array<std::string_view, 7> kWithWindows = {
    "gemma2", "gemma3", "cohere2", "gpt_oss", "olmo3", "phi3", "starcoder2"};
constexpr std::array<std::string_view, 2> kWithWindowsAtTimes = {"phi3", "starcoder2"};

class Keys {
 public:
  explicit Keys(const std::string& architecture) : prefix_(architecture + ".") {}

  void integer(const char* key, int64_t value) {
    all_.emplace_back(prefix_ + key, static_cast<uint64_t>(value));
  }
  void number(const char* key, double value) {
    all_.emplace_back(prefix_ + key, static_cast<float>(value));
  }
  void flag(const char* key, bool value) { all_.emplace_back(prefix_ + key, value); }
  void text(const char* key, const std::string& value) { all_.emplace_back(prefix_ + key, value); }
  void flags(const char* key, std::vector<uint8_t> values) {
    all_.emplace_back(prefix_ + key, std::move(values));
  }
  GgufMetadata take() { return std::move(all_); }

 private:
  std::string prefix_;
  GgufMetadata all_;
};

void write_sizes(const Architecture& a, Keys& keys) {
  const AttentionShape& attention = a.block(0).attention().shape;
  const NormRule& norm = a.decoder.final_norm.rule;
  keys.integer("vocab_size", a.vocab_size);
  keys.integer("context_length", a.has_encoder() ? kContextOfT5 : a.max_positions);
  keys.integer("embedding_length", a.hidden_size);
  keys.integer("block_count", a.has_encoder() ? a.encoder.num_layers() : a.num_layers());
  keys.integer("feed_forward_length", inner_size(a));
  keys.integer("attention.head_count", attention.heads);
  keys.integer("attention.head_count_kv", attention.kv_heads);
  if (a.has_encoder() || attention.heads * attention.head_dim != a.hidden_size) {
    keys.integer("attention.key_length", attention.head_dim);
    keys.integer("attention.value_length", attention.head_dim);
  }
  keys.number(norm.kind == NormKind::kRms ? "attention.layer_norm_rms_epsilon"
                                          : "attention.layer_norm_epsilon",
              norm.eps);
}

void write_encoder_decoder(const Architecture& a, Keys& keys) {
  if (!a.has_encoder()) return;
  keys.integer("decoder_block_count", a.decoder.num_layers());
  keys.integer("decoder_start_token_id", a.decoder_tokens.start);
  keys.integer("attention.relative_buckets_count", a.decoder.relative_bias.buckets);
  keys.number("attention.layer_norm_epsilon", a.decoder.final_norm.rule.eps);
}

void write_yarn(const RopeConfig& rope, Keys& keys) {
  keys.integer("rope.scaling.original_context_length",
               static_cast<int64_t>(rope.original_max_positions));
  keys.number("rope.scaling.yarn_beta_fast", rope.beta_fast);
  keys.number("rope.scaling.yarn_beta_slow", rope.beta_slow);
  const double usual = yarn_attention_factor(rope.factor, 0, 0);
  // The factor of 1 is that of equal mscale and mscale_all_dim.
  if (rope.attention_factor == 1)
    keys.number("rope.scaling.yarn_log_multiplier", 1);
  else if (std::abs(rope.attention_factor - usual) > 1e-6)
    keys.number("rope.scaling.yarn_attn_factor", rope.attention_factor / usual);
}

void write_rope(const Architecture& a, Keys& keys) {
  if (a.rotaries.empty()) return;
  const RotarySpec& rotary = a.rotaries.front();
  const RopeConfig& rope = rotary.rope;
  keys.integer("rope.dimension_count", rotary.width);
  keys.number("rope.freq_base", rope.theta);
  if (rope.type == "linear" || rope.type == "yarn") {
    keys.text("rope.scaling.type", rope.type);
    keys.number("rope.scaling.factor", rope.factor);
  }
  if (rope.type == "yarn") write_yarn(rope, keys);
  if (rope.type == "longrope")
    keys.integer("rope.scaling.original_context_length",
                 static_cast<int64_t>(rope.original_max_positions));
  if (rope.type == "longrope" || (rope.type != "yarn" && rope.attention_factor != 1))
    keys.number("rope.scaling.attn_factor", rope.attention_factor);
  if (a.family == "gemma3" && a.rotaries.size() > 1)
    keys.number("rope.freq_base_swa", a.rotaries[1].rope.theta);
}

void write_windows(const Architecture& a, Keys& keys) {
  const int64_t window = smallest_window(a);
  if (!is_one_of(a.family, kWithWindows)) return;
  if (window == 0 && is_one_of(a.family, kWithWindowsAtTimes)) return;
  keys.integer("attention.sliding_window", window);
  if (a.family != "olmo3") return;
  std::vector<uint8_t> slides;
  for (int64_t layer = 0; layer < a.num_layers(); ++layer)
    slides.push_back(a.block(layer).attention().shape.window > 0);
  keys.flags("attention.sliding_window_pattern", slides);
}

void write_scales(const Architecture& a, Keys& keys) {
  const AttentionSpec& attention = a.block(0).attention();
  if (a.family == "granite" || a.family == "granitemoe") {
    keys.number("embedding_scale", a.embedding.multiplier);
    keys.number("residual_scale", a.block(0).branches[0].multiplier);
    keys.number("attention.scale", attention.shape.scale);
    keys.number("logit_scale", 1 / a.logit_multiplier);
  }
  if (a.family == "cohere" || a.family == "cohere2") keys.number("logit_scale", a.logit_multiplier);
  if (attention.shape.softcap != 0) keys.number("attn_logit_softcapping", attention.shape.softcap);
  if (a.logit_softcap != 0) keys.number("final_logit_softcapping", a.logit_softcap);
  if (attention.clamp != 0) keys.number("attention.clamp_kqv", attention.clamp);
  if (a.query_scaling.beta != 0) keys.number("attention.temperature_scale", a.query_scaling.beta);
}

void write_experts(const Architecture& a, Keys& keys) {
  const ExpertsSpec* experts = first_experts(a);
  if (!experts) return;
  keys.integer("expert_count", experts->routing.experts);
  keys.integer("expert_used_count", experts->routing.active);
  keys.integer("expert_feed_forward_length", experts->inner);
  if (experts->shared) keys.integer("expert_shared_feed_forward_length", experts->shared->inner);
}

void write_layout(const Architecture& a, Keys& keys) {
  if (a.family == "gpt_neox" || a.family == "stablelm")
    keys.flag("use_parallel_residual", a.block(0).branches[1].beside);
  if (a.family == "mpt") keys.number("attention.max_alibi_bias", 8);
  if (a.family == "falcon") keys.text("tensor_data_layout", "jploski");
}

std::vector<float> divisors_of(const RotarySpec& rotary) {
  RopeConfig plain = rotary.rope;
  plain.type = "default";
  plain.divisors.clear();
  std::vector<float> divisors = inverse_frequencies(plain, rotary.width);
  const std::vector<float> scaled = inverse_frequencies(rotary.rope, rotary.width);
  for (size_t i = 0; i < divisors.size(); ++i) divisors[i] /= scaled[i];
  return divisors;
}

std::vector<std::pair<std::string, std::vector<float>>> rope_tensors(const Architecture& a) {
  if (a.rotaries.empty()) return {};
  const RopeConfig& rope = a.rotaries.front().rope;
  if (rope.type == "longrope")
    return {{"rope_factors_long.weight", rope.long_factor},
            {"rope_factors_short.weight", rope.short_factor}};
  if (rope.type == "llama3" || !rope.divisors.empty())
    return {{"rope_freqs.weight", divisors_of(a.rotaries.front())}};
  return {};
}

// The description with what the architecture knows no words for taken out, where that leaves it the
// same model.
Architecture as_written(const Architecture& model, const Family& family) {
  Architecture a = model;
  if (family.gguf_written_as == "llama") keep_rotary_pairs(a);
  // A head of its own, scaled in advance.
  if (a.has_encoder() && a.logit_multiplier != 1) {
    a.logit_multiplier = 1;
    a.tied_embeddings = false;
  }
  const int64_t window = smallest_window(a);
  if (window == 0 || is_one_of(a.family, kWithWindows)) return a;
  if (window < a.max_positions) {
    log::warning_once(
        "GGUF files of {} know no window: the context is written as the window, {} tokens instead "
        "of {}, within which the model is the same",
        a.family, window, a.max_positions);
    a.max_positions = window;
  }
  for (BlockSpec& kind : a.decoder.kinds) kind.attention().shape.window = 0;
  return a;
}

// Weights by name and shape: what a reader asks of the tensors.
std::vector<io::TensorView> weight_headers(const Architecture& a) {
  const GgufNames names(a);
  std::vector<io::TensorView> headers;
  const auto add = [&](const std::string& module, const std::vector<int64_t>& shape) {
    io::TensorView header;
    header.name = names.of_tensor(module + ".weight").name;
    header.shape = shape;
    headers.push_back(std::move(header));
  };
  add(a.embedding.names.hugging_face, {a.vocab_size, a.embedding.width});
  if (!a.tied_embeddings) add(a.head.names.hugging_face, {a.head.out, a.head.in});
  for_each_norm(a, [&](const std::string& module, const NormSpec& norm) {
    if (norm.weight) add(module, norm.shape());
  });
  for_each_linear(a, [&](const std::string& module, const LinearSpec& linear) {
    if (!lora::expert_name(module)) add(module, {linear.out, linear.in});
  });
  return headers;
}

// Reads the description as a file would give it.
std::string difference_when_read(const GgufDescription& description) {
  GgufMetadata metadata = description.metadata;
  metadata.emplace_back("general.architecture", description.architecture);
  return first_difference(description.model,
                          read_architecture(io::GgufFile("the GGUF file", metadata,
                                                         weight_headers(description.model))));
}

}  // namespace

GgufDescription describe_for_gguf(const Architecture& model) {
  const Family& family = family_named(model.family);
  GgufDescription description;
  description.architecture =
      family.gguf_architectures.empty() ? family.gguf_written_as : family.gguf_architectures[0];
  if (description.architecture.empty())
    fail<ConfigError>(
        "--format gguf: llama.cpp does not run {} models, so that GGUF files of them are of no "
        "use; "
        "export --format merged",
        model.family);
  description.model = as_written(model, family);
  description.head_factor = model.logit_multiplier / description.model.logit_multiplier;
  const Architecture& a = description.model;
  Keys keys(description.architecture);
  write_sizes(a, keys);
  write_encoder_decoder(a, keys);
  write_rope(a, keys);
  write_windows(a, keys);
  write_scales(a, keys);
  write_experts(a, keys);
  write_layout(a, keys);
  description.metadata = keys.take();
  description.tensors = rope_tensors(a);
  std::string difference;
  try {
    difference = difference_when_read(description);
  } catch (const Error& error) {
    difference = error.what();
  }
  if (!difference.empty())
    fail<ConfigError>(
        "--format gguf: GGUF files of {} ({}) cannot hold this model: {}; export --format merged",
        model.family, description.architecture, difference);
  return description;
}

}  // namespace qlora::model
