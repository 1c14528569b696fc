#include "tests/support/small_models.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "base/seed.h"
#include "model/families/family.h"
#include "model/load.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kVocabulary = 258, kHidden = 32, kPositions = 24;

at::Tensor made_tensor(const std::string& name, const std::vector<int64_t>& shape) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  const uint64_t key = random_key(11, name);
  float* values = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i)
    values[i] = 0.15f * normal(key, static_cast<uint64_t>(i));
  return shape.size() == 1 && name.ends_with(".weight") ? tensor + 1.0 : tensor;
}

class Builder {
 public:
  explicit Builder(json config) { model_.config = std::move(config); }

  void tensor(const std::string& name, const std::vector<int64_t>& shape) {
    model_.tensors.emplace(name, made_tensor(name, shape));
  }
  void norm(const std::string& module) {
    tensor(module + ".weight", {kHidden});
    tensor(module + ".bias", {kHidden});
  }
  // A weight of this shape, with a bias if `bias` is its size.
  void linear(const std::string& module, int64_t rows, int64_t columns, int64_t bias = 0) {
    tensor(module + ".weight", {rows, columns});
    if (bias > 0) tensor(module + ".bias", {bias});
  }

  SmallModel take() { return std::move(model_); }

 private:
  SmallModel model_;
};

SmallModel opt(int layers, int64_t width) {
  const bool is_350m = width != kHidden;
  Builder b({{"model_type", "opt"},
             {"vocab_size", kVocabulary},
             {"hidden_size", kHidden},
             {"word_embed_proj_dim", width},
             {"ffn_dim", 48},
             {"num_hidden_layers", layers},
             {"num_attention_heads", 4},
             {"max_position_embeddings", kPositions},
             {"do_layer_norm_before", !is_350m},
             {"activation_function", "relu"}});
  const std::string base = "model.decoder.";
  b.linear(base + "embed_tokens", kVocabulary, width);
  b.linear(base + "embed_positions", kPositions + 2, kHidden);
  if (is_350m) {
    b.linear(base + "project_in", kHidden, width);
    b.linear(base + "project_out", width, kHidden);
  } else {
    b.norm(base + "final_layer_norm");
  }
  for (int i = 0; i < layers; ++i) {
    const std::string p = fmt::format("{}layers.{}.", base, i);
    for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"})
      b.linear(p + "self_attn." + name, kHidden, kHidden, kHidden);
    b.norm(p + "self_attn_layer_norm");
    b.linear(p + "fc1", 48, kHidden, 48);
    b.linear(p + "fc2", kHidden, 48, kHidden);
    b.norm(p + "final_layer_norm");
  }
  return b.take();
}

}  // namespace

model::Architecture described(const json& config) {
  return model::read_architecture(io::JsonNode(config, "config.json"));
}

void SmallModel::write_weights(const std::string& directory) const {
  fs::create_directories(directory);
  std::ofstream(fs::path(directory) / "config.json") << config.dump();
  quant::write_tensors((fs::path(directory) / "model.safetensors").string(),
                       {tensors.begin(), tensors.end()}, {{"format", "pt"}});
}

void SmallModel::write(const std::string& directory) const {
  write_tiny_directory(directory);
  write_weights(directory);
}

std::unique_ptr<model::CausalLm> SmallModel::load(
    at::ScalarType compute, const model::ModelOptions& options,
    const quant::QuantizationOptions& quantization) const {
  const TempDir dir;
  write_weights(dir.path());
  const auto source = model::open_weights(dir.path());
  return model::load_model(*source, options, quantization, at::kCPU, compute);
}

SmallModel small_gpt2(int layers) {
  Builder b({{"model_type", "gpt2"},
             {"vocab_size", kVocabulary},
             {"n_embd", kHidden},
             {"n_layer", layers},
             {"n_head", 4},
             {"n_positions", kPositions}});
  b.linear("transformer.wte", kVocabulary, kHidden);
  b.linear("transformer.wpe", kPositions, kHidden);
  b.norm("transformer.ln_f");
  for (int i = 0; i < layers; ++i) {  // [in, out]
    const std::string p = fmt::format("transformer.h.{}.", i);
    b.norm(p + "ln_1");
    b.linear(p + "attn.c_attn", kHidden, 3 * kHidden, 3 * kHidden);
    b.linear(p + "attn.c_proj", kHidden, kHidden, kHidden);
    b.norm(p + "ln_2");
    b.linear(p + "mlp.c_fc", kHidden, 128, 128);
    b.linear(p + "mlp.c_proj", 128, kHidden, kHidden);
  }
  return b.take();
}

SmallModel small_gptj(int layers) {
  Builder b({{"model_type", "gptj"},
             {"vocab_size", kVocabulary},
             {"n_embd", kHidden},
             {"n_inner", 48},
             {"n_layer", layers},
             {"n_head", 4},
             {"rotary_dim", 4},
             {"tie_word_embeddings", false}});
  b.linear("transformer.wte", kVocabulary, kHidden);
  b.norm("transformer.ln_f");
  b.linear("lm_head", kVocabulary, kHidden, kVocabulary);
  for (int i = 0; i < layers; ++i) {
    const std::string p = fmt::format("transformer.h.{}.", i);
    b.norm(p + "ln_1");
    for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"})
      b.linear(p + "attn." + name, kHidden, kHidden);
    b.linear(p + "mlp.fc_in", 48, kHidden, 48);
    b.linear(p + "mlp.fc_out", kHidden, 48, kHidden);
  }
  return b.take();
}

SmallModel small_gpt_neox(int layers, bool parallel) {
  Builder b({{"model_type", "gpt_neox"},
             {"vocab_size", kVocabulary},
             {"hidden_size", kHidden},
             {"intermediate_size", 48},
             {"num_hidden_layers", layers},
             {"num_attention_heads", 4},
             {"max_position_embeddings", 512},
             {"rotary_pct", 0.5},
             {"use_parallel_residual", parallel},
             {"tie_word_embeddings", false}});
  b.linear("gpt_neox.embed_in", kVocabulary, kHidden);
  b.norm("gpt_neox.final_layer_norm");
  b.linear("embed_out", kVocabulary, kHidden);
  for (int i = 0; i < layers; ++i) {
    const std::string p = fmt::format("gpt_neox.layers.{}.", i);
    b.norm(p + "input_layernorm");
    b.linear(p + "attention.query_key_value", 3 * kHidden, kHidden, 3 * kHidden);
    b.linear(p + "attention.dense", kHidden, kHidden, kHidden);
    b.norm(p + "post_attention_layernorm");
    b.linear(p + "mlp.dense_h_to_4h", 48, kHidden, 48);
    b.linear(p + "mlp.dense_4h_to_h", kHidden, 48, kHidden);
  }
  return b.take();
}

SmallModel small_opt(int layers) { return opt(layers, kHidden); }
SmallModel small_opt_350m(int layers) { return opt(layers, kHidden / 2); }

SmallModel small_bloom(int layers, bool residual_is_normed) {
  Builder b({{"model_type", "bloom"},
             {"vocab_size", kVocabulary},
             {"hidden_size", kHidden},
             {"n_layer", layers},
             {"n_head", 4},
             {"apply_residual_connection_post_layernorm", residual_is_normed}});
  b.linear("transformer.word_embeddings", kVocabulary, kHidden);
  b.norm("transformer.word_embeddings_layernorm");
  b.norm("transformer.ln_f");
  for (int i = 0; i < layers; ++i) {
    const std::string p = fmt::format("transformer.h.{}.", i);
    b.norm(p + "input_layernorm");
    b.linear(p + "self_attention.query_key_value", 3 * kHidden, kHidden, 3 * kHidden);
    b.linear(p + "self_attention.dense", kHidden, kHidden, kHidden);
    b.norm(p + "post_attention_layernorm");
    b.linear(p + "mlp.dense_h_to_4h", 128, kHidden, 128);
    b.linear(p + "mlp.dense_4h_to_h", kHidden, 128, kHidden);
  }
  return b.take();
}

SmallModel small_falcon(int layers) {
  Builder b({{"model_type", "falcon"},
             {"vocab_size", kVocabulary},
             {"hidden_size", kHidden},
             {"num_hidden_layers", layers},
             {"num_attention_heads", 4},
             {"num_kv_heads", 2},
             {"new_decoder_architecture", true}});
  b.linear("transformer.word_embeddings", kVocabulary, kHidden);
  b.norm("transformer.ln_f");
  for (int i = 0; i < layers; ++i) {
    const std::string p = fmt::format("transformer.h.{}.", i);
    b.norm(p + "ln_attn");
    b.norm(p + "ln_mlp");
    b.linear(p + "self_attention.query_key_value", 64, kHidden);
    b.linear(p + "self_attention.dense", kHidden, kHidden);
    b.linear(p + "mlp.dense_h_to_4h", 128, kHidden);
    b.linear(p + "mlp.dense_4h_to_h", kHidden, 128);
  }
  return b.take();
}

SmallModel small_ministral3(double beta, int layers) {
  Builder b({{"model_type", "ministral3"},
             {"vocab_size", kVocabulary},
             {"hidden_size", kHidden},
             {"intermediate_size", 48},
             {"num_hidden_layers", layers},
             {"num_attention_heads", 4},
             {"num_key_value_heads", 2},
             {"head_dim", 8},
             {"tie_word_embeddings", true},
             {"rope_parameters",
              {{"rope_type", "yarn"},
               {"rope_theta", 10000.0},
               {"factor", 4.0},
               {"original_max_position_embeddings", 16},
               {"llama_4_scaling_beta", beta}}}});
  b.linear("model.embed_tokens", kVocabulary, kHidden);
  b.tensor("model.norm.weight", {kHidden});
  for (int i = 0; i < layers; ++i) {
    const std::string p = fmt::format("model.layers.{}.", i);
    b.tensor(p + "input_layernorm.weight", {kHidden});
    b.tensor(p + "post_attention_layernorm.weight", {kHidden});
    b.linear(p + "self_attn.q_proj", kHidden, kHidden);
    b.linear(p + "self_attn.k_proj", kHidden / 2, kHidden);
    b.linear(p + "self_attn.v_proj", kHidden / 2, kHidden);
    b.linear(p + "self_attn.o_proj", kHidden, kHidden);
    b.linear(p + "mlp.gate_proj", 48, kHidden);
    b.linear(p + "mlp.up_proj", 48, kHidden);
    b.linear(p + "mlp.down_proj", kHidden, 48);
  }
  return b.take();
}

}  // namespace qlora::test
