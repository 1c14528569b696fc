// Model directories, GGUF models, adapters.
#include <ATen/ATen.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "lora/adapter_file.h"
#include "lora/adapter_fit.h"
#include "lora/attach.h"
#include "model/hugging_face_config.h"
#include "model/load.h"
#include "model/model_header.h"
#include "tests/fuzz/target.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/tiny_model.h"

namespace qlora::fuzz {
namespace {

void load(const std::string& path) {
  quant::QuantizationOptions nf4;
  nf4.method = "nf4";
  taken_or_refused([&] { model::read_model_header(path); });
  taken_or_refused([&] {
    const auto source = model::open_weights(path);
    model::load_model(*source, {}, nf4, at::kCPU, at::kFloat);
  });
}

const std::vector<std::string> kModelFiles = {"config.json", "model.safetensors.index.json",
                                              "model.safetensors"};

void read_model_directory(std::string_view bytes) {
  static const test::TempDir dir(memory_file_system());
  write_parts(split_parts(bytes), kModelFiles, dir.path());
  load(dir.path());
}

std::vector<std::string> model_directory_seeds() {
  const test::TempDir dir;
  test::write_tiny_directory(dir.path());
  Parts parts = parts_of_directory(dir.path(), kModelFiles);
  std::vector<std::string> seeds = {join_parts(parts)};
  parts.erase("model.safetensors");
  seeds.push_back(join_parts(parts));
  return seeds;
}

void read_model_gguf(std::string_view bytes) {
  static const test::TempDir dir(memory_file_system());
  const std::string path = dir.write("model.gguf", std::string(bytes));
  load(path);
  taken_or_refused([&] { model::hugging_face_config(model::open_weights(path)->architecture()); });
}

std::vector<std::string> model_gguf_seeds() {
  const test::TempDir dir;
  test::write_tiny_gguf(dir / "model.gguf");
  test::write_mxfp4_directory(dir / "experts");
  test::write_mxfp4_gguf(dir / "experts", dir / "experts.gguf");
  test::write_made_gguf(dir / "t5.gguf", R"({
    "model_type": "t5", "vocab_size": 258, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1,
    "num_heads": 4, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false})");
  return {test::read_file(dir / "model.gguf"), test::read_file(dir / "experts.gguf"),
          test::read_file(dir / "t5.gguf")};
}

const std::vector<std::string> kAdapterFiles = {"adapter_config.json", "adapter_model.safetensors",
                                                "qlora_base.json"};

// The model whose slots adapters fill, which takes as long to make as an adapter to read.
struct AdaptedModel {
  std::unique_ptr<model::CausalLm> model = test::tiny_model();
  lora::TrainableParts parts = model->parts();

  lora::BaseView view() const {
    const model::Architecture& a = model->architecture();
    lora::BaseView view{.place = "base",
                        .linear = a.linear_modules(),
                        .others = {a.embedding_names().embedding},
                        .vocab_size = a.vocab_size,
                        .tied = a.tied_embeddings,
                        .names = a.embedding_names(),
                        .weight = [this](const std::string&) { return model->embedding.weight; }};
    view.linear.push_back(view.names.head);
    for (const auto& [module, norm] : parts.norms) view.others.push_back(module);
    return view;
  }

  // Zeros, which the adapter's tensors replace: a rank of thousands would take a second of random
  // numbers.
  lora::GivenFactors zeros(const lora::LoraOptions& options) const {
    lora::GivenFactors zeros;
    const at::Tensor zero = at::zeros({1, 1}, at::kFloat);
    for (const lora::LinearGroup* group : parts.all_groups())
      for (const lora::LoraLinear& layer : group->layers()) {
        const int64_t rank = options.of_module(layer.name).rank;
        zeros[layer.name] = {zero.expand({rank, layer.in_features()}),
                             zero.expand({layer.out_features(), rank})};
      }
    return zeros;
  }
};

void read_adapter(std::string_view bytes) {
  static const test::TempDir dir(memory_file_system());
  write_parts(split_parts(bytes), kAdapterFiles, dir.path());
  taken_or_refused([&] { lora::read_adapter_base(dir.path()); });
  taken_or_refused([&] { lora::read_adapter_init(dir.path()); });
  static AdaptedModel base;
  const auto attach = [&](const lora::LoraOptions& options,
                          const std::set<std::string>& passed_over) {
    lora::AdapterSet adapters(options, base.parts, at::kFloat, 0, base.zeros(options));
    lora::read_adapter_tensors(dir.path(), adapters, passed_over);
  };
  taken_or_refused([&] { attach(lora::read_adapter_options(dir.path()), {}); });
  taken_or_refused([&] {
    const lora::FittedAdapter fitted = lora::fit_adapter(dir.path(), base.view());
    lora::reading_bytes(dir.path(), fitted.options, base.parts.names, 1000);
    attach(fitted.options, fitted.passed_over);
  });
}

Parts adapter_parts(const std::vector<std::string>& modules_to_save) {
  const test::TempDir dir;
  const auto model = test::tiny_model();
  lora::LoraOptions options;
  options.rank = 4;
  options.alpha = 8;
  options.modules_to_save = modules_to_save;
  const lora::AdapterSet adapters(options, model->parts(), at::kFloat, 0);
  lora::write_adapter(dir.path(), adapters, options,
                      {.name = "someone/model",
                       .path = "model",
                       .quantization = {},
                       .dtype = "bfloat16",
                       .hash = "0123"});
  return parts_of_directory(dir.path(), kAdapterFiles);
}

// Factors alone; with an embedding and norms; and with an embedding that the config does not name.
std::vector<std::string> adapter_seeds() {
  Parts unnamed = adapter_parts({"embed_tokens"});
  auto config = nlohmann::json::parse(unnamed.at("adapter_config.json"));
  config["modules_to_save"] = nullptr;
  unnamed["adapter_config.json"] = config.dump();
  return {join_parts(adapter_parts({})), join_parts(adapter_parts({"embed_tokens", "norm"})),
          join_parts(unnamed)};
}

}  // namespace

std::vector<Target> model_targets() {
  return {{"model_directory",
           read_model_directory,
           model_directory_seeds,
           {"\"model_type\"", "\"rope_scaling\"", "\"rope_parameters\"", "\"rope_type\"",
            "\"llama3\"", "\"factor\"", "\"head_dim\"", "\"quantization_config\"",
            "\"tie_word_embeddings\"", "null", "true", "-1", "0", "1e39", "9223372036854775807"}},
          {"model_gguf",
           read_model_gguf,
           model_gguf_seeds,
           {"llama.rope.freq_base", "llama.rope.scaling.type", "llama.attention.key_length",
            "blk.0.attn_q.weight"}},
          {"adapter",
           read_adapter,
           adapter_seeds,
           {"\"target_modules\"", "\"modules_to_save\"", "\"use_dora\"", "\"rank_pattern\"",
            "\"alpha_pattern\"", "\"init_lora_weights\"", "\"bias\"", "\"trainable_token_indices\"",
            "\"layers_to_transform\"", "\"fan_in_fan_out\"", "true", "null", "[]", "{}", "(.*",
            "lm_head"}}};
}

}  // namespace qlora::fuzz
