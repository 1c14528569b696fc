// Model directories, GGUF models, adapters.
#include <nlohmann/json.hpp>

#include "lora/adapter_file.h"
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
  static const test::TempDir dir;
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
  static const test::TempDir dir;
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

void read_adapter(std::string_view bytes) {
  static const test::TempDir dir;
  write_parts(split_parts(bytes), kAdapterFiles, dir.path());
  taken_or_refused([&] { lora::read_adapter_base(dir.path()); });
  taken_or_refused([&] { lora::read_adapter_init(dir.path()); });
  taken_or_refused([&] {
    const auto model = test::tiny_model();
    lora::AdapterSet adapters(lora::read_adapter_options(dir.path()), model->groups(), at::kFloat,
                              0);
    lora::read_adapter_tensors(dir.path(), adapters);
  });
}

std::vector<std::string> adapter_seeds() {
  const test::TempDir dir;
  const auto model = test::tiny_model();
  lora::LoraOptions options;
  options.rank = 4;
  options.alpha = 8;
  const lora::AdapterSet adapters(options, model->groups(), at::kFloat, 0);
  lora::write_adapter(dir.path(), adapters, options,
                      {.name = "someone/model",
                       .path = "model",
                       .quantization = {},
                       .dtype = "bfloat16",
                       .hash = "0123"});
  return {join_parts(parts_of_directory(dir.path(), kAdapterFiles))};
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
