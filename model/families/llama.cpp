#include "model/families/llama.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/families/llama_keys.h"
#include "model/families/rope_keys.h"

namespace qlora::model {
namespace {

constexpr int64_t kMost = int64_t{1} << 31;

int64_t integer_or(const io::JsonNode& config, const char* key, int64_t otherwise) {
  const auto node = config.find(key);
  return node ? node->as_integer(0, kMost) : otherwise;
}

double number_or(const io::JsonNode& node, const char* key, double otherwise) {
  const auto found = node.find(key);
  return found ? found->as_number() : otherwise;
}

ModelConfig from_hugging_face(const io::JsonNode& json) {
  const std::string activation = json.string_or("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") json.at("hidden_act").reject("'silu'");
  check_llama_keys(json);

  ModelConfig config;
  config.family = "llama";
  config.vocab_size = integer_or(json, "vocab_size", 32000);
  config.hidden_size = integer_or(json, "hidden_size", 4096);
  config.intermediate_size = integer_or(json, "intermediate_size", 11008);
  config.num_layers = integer_or(json, "num_hidden_layers", 32);
  config.num_heads = integer_or(json, "num_attention_heads", 32);
  config.num_kv_heads = integer_or(json, "num_key_value_heads", config.num_heads);
  const int64_t heads = std::max<int64_t>(config.num_heads, 1);
  config.head_dim = integer_or(json, "head_dim", config.hidden_size / heads);
  if (!json.find("head_dim") && config.hidden_size % heads != 0)
    json.at("hidden_size").reject(fmt::format("a multiple of num_attention_heads, {}", heads));
  config.max_positions = integer_or(json, "max_position_embeddings", 2048);
  config.rms_norm_eps = number_or(json, "rms_norm_eps", 1e-6);
  config.attention_bias = json.bool_or("attention_bias", false);
  config.mlp_bias = json.bool_or("mlp_bias", false);
  config.tied_embeddings = json.bool_or("tie_word_embeddings", false);
  config.rope = read_rope_keys(json, config.max_positions);
  config.validate(json.place());
  return config;
}

ModelConfig from_gguf(const io::GgufFile& file) {
  const std::string arch = file.text("general.architecture") + ".";
  const auto size = [&](const char* key) { return file.integer(arch + key, 1, kMost); };
  ModelConfig config;
  config.family = "llama";
  config.hidden_size = size("embedding_length");
  config.intermediate_size = size("feed_forward_length");
  config.num_layers = size("block_count");
  config.num_heads = size("attention.head_count");
  config.num_kv_heads =
      file.integer_or(arch + "attention.head_count_kv", 1, kMost, config.num_heads);
  config.head_dim = file.integer_or(arch + "attention.key_length", 1, kMost,
                                    config.hidden_size / config.num_heads);
  config.max_positions = file.integer_or(arch + "context_length", 1, kMost, 2048);
  config.rms_norm_eps = file.number(arch + "attention.layer_norm_rms_epsilon");
  if (file.integer_or(arch + "expert_count", 0, kMost, 0) > 0) {
    fail<FormatError>("{}: mixtures of experts are not supported in this version", file.path());
  }
  config.rope.theta = file.number_or(arch + "rope.freq_base", 10000.0);
  // Before there was rope.scaling.type.
  if (const double linear = file.number_or(arch + "rope.scale_linear", 1.0); linear != 1) {
    config.rope.type = "linear";
    config.rope.factor = linear;
  }
  const std::string scaling = file.text_or(arch + "rope.scaling.type", "none");
  if (scaling == "linear") {
    config.rope.type = scaling;
    config.rope.factor = file.number(arch + "rope.scaling.factor");
  } else if (scaling != "none") {
    fail<FormatError>("{}: {}rope.scaling.type '{}' is not supported; this version knows linear",
                      file.path(), arch, scaling);
  }
  if (const io::TensorView* embedding = file.find("token_embd.weight");
      embedding && embedding->shape.size() == 2) {
    config.vocab_size = embedding->shape[0];
  } else {
    fail<FormatError>("{}: there must be a tensor token_embd.weight [vocabulary, {}]", file.path(),
                      config.hidden_size);
  }
  config.tied_embeddings = file.find("output.weight") == nullptr;
  config.validate(file.path());
  check_llama_keys(file, config);
  return config;
}

nlohmann::ordered_json to_hugging_face(const ModelConfig& config, const std::string& dtype) {
  nlohmann::ordered_json json = {{"architectures", {"LlamaForCausalLM"}},
                                 {"model_type", "llama"},
                                 {"attention_bias", config.attention_bias},
                                 {"attention_dropout", 0.0},
                                 {"head_dim", config.head_dim},
                                 {"hidden_act", "silu"},
                                 {"hidden_size", config.hidden_size},
                                 {"initializer_range", 0.02},
                                 {"intermediate_size", config.intermediate_size},
                                 {"max_position_embeddings", config.max_positions},
                                 {"mlp_bias", config.mlp_bias},
                                 {"num_attention_heads", config.num_heads},
                                 {"num_hidden_layers", config.num_layers},
                                 {"num_key_value_heads", config.num_kv_heads},
                                 {"rms_norm_eps", config.rms_norm_eps},
                                 {"rope_theta", config.rope.theta},
                                 {"rope_scaling", nullptr},
                                 {"tie_word_embeddings", config.tied_embeddings},
                                 {"torch_dtype", dtype},
                                 {"use_cache", true},
                                 {"vocab_size", config.vocab_size}};
  const RopeConfig& rope = config.rope;
  if (!rope.divisors.empty()) {
    throw ConfigError(
        "the model's RoPE frequencies (rope_freqs.weight) are none that a config.json can name; "
        "export the adapter instead");
  }
  if (rope.type != "default") {
    json["rope_scaling"] = {{"rope_type", rope.type}, {"factor", rope.factor}};
    if (rope.type == "llama3") {
      json["rope_scaling"]["low_freq_factor"] = rope.low_freq_factor;
      json["rope_scaling"]["high_freq_factor"] = rope.high_freq_factor;
      json["rope_scaling"]["original_max_position_embeddings"] =
          static_cast<int64_t>(rope.original_max_positions);
    }
  }
  return json;
}

std::string replace_prefix(const std::string& name, const char* from, const std::string& to) {
  return name.starts_with(from) ? to + name.substr(std::string(from).size()) : "";
}

std::string gguf_name(const std::string& name) {
  static const std::vector<std::pair<const char*, const char*>> in_layer = {
      {"input_layernorm.", "attn_norm."},    {"self_attn.q_proj.", "attn_q."},
      {"self_attn.k_proj.", "attn_k."},      {"self_attn.v_proj.", "attn_v."},
      {"self_attn.o_proj.", "attn_output."}, {"post_attention_layernorm.", "ffn_norm."},
      {"mlp.gate_proj.", "ffn_gate."},       {"mlp.up_proj.", "ffn_up."},
      {"mlp.down_proj.", "ffn_down."}};
  static const std::vector<std::pair<const char*, const char*>> outside = {
      {"model.embed_tokens.", "token_embd."},
      {"model.norm.", "output_norm."},
      {"lm_head.", "output."}};
  for (const auto& [from, to] : outside)
    if (name.starts_with(from)) return replace_prefix(name, from, to);
  const std::string layer = replace_prefix(name, "model.layers.", "");
  const size_t dot = layer.find('.');
  if (dot != std::string::npos) {
    const std::string rest = layer.substr(dot + 1);
    for (const auto& [from, to] : in_layer)
      if (rest.starts_with(from))
        return replace_prefix(rest, from, "blk." + layer.substr(0, dot + 1) + to);
  }
  fail<Error>("no GGUF name is known for {}", name);
}

bool interleaved_in_gguf(const std::string& name) {
  return name.find(".self_attn.q_proj.") != std::string::npos ||
         name.find(".self_attn.k_proj.") != std::string::npos;
}

}  // namespace

Family llama_family() {
  return {.name = "llama",
          .model_types = {"llama"},
          .gguf_architectures = {"llama"},
          .from_hugging_face = from_hugging_face,
          .from_gguf = from_gguf,
          .to_hugging_face = to_hugging_face,
          .gguf_name = gguf_name,
          .interleaved_in_gguf = interleaved_in_gguf};
}

}  // namespace qlora::model
