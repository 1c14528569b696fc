#include "tests/support/tiny_files.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/byte_level_json.h"
#include "export/merged.h"
#include "io/gguf.h"
#include "io/json.h"
#include "model/families/family.h"
#include "model/gguf_names.h"
#include "model/load.h"
#include "model/made_weights.h"
#include "quant/tensor_file.h"
#include "tests/support/tiny_model.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;

constexpr int64_t kVocabulary = 258;  // 256 bytes, <|im_start|>, <|im_end|>
constexpr const char* kChatMl =
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

std::vector<std::string> tokens() {
  std::vector<std::string> all;
  for (int byte = 0; byte < 256; ++byte) {
    all.emplace_back();
    data::append_byte_letters(std::string(1, static_cast<char>(byte)), all.back());
  }
  all.emplace_back("<|im_start|>");
  all.emplace_back("<|im_end|>");
  return all;
}

void write(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

void write_tokenizer(const fs::path& directory) {
  nlohmann::json vocab = nlohmann::json::object(), added = nlohmann::json::array();
  const auto all = tokens();
  for (size_t id = 0; id < all.size(); ++id) {
    vocab[all[id]] = id;
    if (id < 256) continue;
    added.push_back({{"id", id},
                     {"content", all[id]},
                     {"special", true},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"single_word", false},
                     {"normalized", false}});
  }
  write(directory / "tokenizer.json",
        data::byte_level_document(data::byte_level_family("gpt-2", "test"), vocab,
                                  nlohmann::json::array(), added, std::nullopt, std::nullopt)
            .dump());
  const nlohmann::json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                 {"eos_token", "<|im_end|>"},
                                 {"chat_template", kChatMl}};
  write(directory / "tokenizer_config.json", config.dump());
}

// Rows of each head from halves to pairs, as llama.cpp stores q and k.
at::Tensor pairs_from_halves(const at::Tensor& rows, int64_t head_dim) {
  return rows.view({rows.size(0) / head_dim, 2, head_dim / 2, rows.size(1)})
      .transpose(1, 2)
      .reshape(rows.sizes());
}

}  // namespace

void write_tiny_directory(const std::string& directory) {
  fs::create_directories(directory);
  write_tokenizer(directory);
  const auto tokenizer = data::load_tokenizer(directory);
  exporting::write_merged(directory, *tiny_model(at::kBFloat16, 1, kVocabulary), *tokenizer,
                          nullptr, "", at::kBFloat16);
}

void write_made_directory(const std::string& directory, const std::string& config) {
  fs::create_directories(directory);
  write_tokenizer(directory);
  write(fs::path(directory) / "config.json", config);
  const nlohmann::json parsed = nlohmann::json::parse(config);
  const auto source =
      model::made_weights(model::read_architecture(io::JsonNode(parsed, "config.json")));
  model::ModelOptions options;
  options.dtype = "bfloat16";
  quant::QuantizationOptions none;
  none.method = "none";
  const auto model = model::load_model(*source, options, none, at::kCPU, at::kFloat);
  exporting::write_merged(directory, *model, *data::load_tokenizer(directory), nullptr, directory,
                          at::kBFloat16);
}

void write_mxfp4_directory(const std::string& directory) {
  write_made_directory(directory, R"({
    "model_type": "gpt_oss", "vocab_size": 258, "hidden_size": 64, "intermediate_size": 32,
    "head_dim": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
    "num_local_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": false})");
  const std::string weights = (fs::path(directory) / "model.safetensors").string();
  quant::NamedTensors tensors;
  for (const auto& [name, tensor] : quant::read_tensors(weights)) {
    if (!name.ends_with("experts.gate_up_proj") && !name.ends_with("experts.down_proj")) {
      tensors.emplace_back(name, tensor);
      continue;
    }
    // Files have [experts, in, out] in 16 bit.
    const int64_t experts = tensor.size(0), out = tensor.size(2), blocks = tensor.size(1) / 32;
    tensors.emplace_back(name + "_blocks",
                         at::randint(0, 256, {experts, out, blocks, 16}, at::kByte));
    tensors.emplace_back(name + "_scales", at::full({experts, out, blocks}, 120, at::kByte));
  }
  quant::write_tensors(weights, tensors, {{"format", "pt"}});
  const std::string file = (fs::path(directory) / "config.json").string();
  nlohmann::json config = io::read_json_file(file);
  config["quantization_config"] = {{"quant_method", "mxfp4"}};
  write(file, config.dump());
}

void write_tiny_gguf(const std::string& path) {
  const auto model = tiny_model(at::kBFloat16, 1, kVocabulary);
  const model::Architecture& c = model->architecture();
  const model::GgufNames names(c);
  const model::AttentionSpec& attention = c.block(0).attention();
  std::vector<int64_t> types(256, 1);
  types.resize(kVocabulary, 3);
  const std::vector<std::pair<std::string, io::GgufValue>> metadata = {
      {"general.architecture", std::string("llama")},
      {"llama.block_count", static_cast<uint64_t>(c.num_layers())},
      {"llama.embedding_length", static_cast<uint64_t>(c.hidden_size)},
      {"llama.feed_forward_length", static_cast<uint64_t>(c.block(0).branches[1].mlp()->inner)},
      {"llama.attention.head_count", static_cast<uint64_t>(attention.shape.heads)},
      {"llama.attention.head_count_kv", static_cast<uint64_t>(attention.shape.kv_heads)},
      {"llama.attention.layer_norm_rms_epsilon", static_cast<float>(c.decoder.final_norm.rule.eps)},
      {"llama.context_length", static_cast<uint64_t>(c.max_positions)},
      {"tokenizer.ggml.model", std::string("gpt2")},
      {"tokenizer.ggml.pre", std::string("gpt-2")},
      {"tokenizer.ggml.tokens", tokens()},
      {"tokenizer.ggml.token_type", types},
      {"tokenizer.ggml.merges", std::vector<std::string>{}},
      {"tokenizer.ggml.eos_token_id", uint64_t{257}},
      {"tokenizer.chat_template", std::string(kChatMl)}};
  std::vector<io::TensorView> headers;
  std::vector<at::Tensor> values;
  for (const auto& [name, tensor] : model->frozen_state()) {
    at::Tensor value = tensor.to(at::kFloat).contiguous();
    const model::GgufTensor stored = names.of_tensor(name);
    if (stored.rows == model::RowOrder::kRotaryPairs)
      value = pairs_from_halves(value, stored.attention.head_dim);
    io::TensorView header;
    header.name = stored.name;
    header.dtype = io::DType::kF32;
    header.shape = value.sizes().vec();
    headers.push_back(header);
    values.push_back(value);
  }
  io::GgufWriter writer(path, metadata, headers);
  for (size_t i = 0; i < values.size(); ++i)
    writer.write(headers[i].name,
                 {static_cast<const std::byte*>(values[i].const_data_ptr()), values[i].nbytes()});
  writer.finish();
}

void write_tiny_rows(const std::string& path, int count) {
  std::ofstream file(path);
  for (int i = 0; i < count; ++i) {
    const nlohmann::ordered_json row = {
        {"messages",
         {{{"role", "user"}, {"content", fmt::format("say {}", i * i)}},
          {{"role", "assistant"}, {"content", fmt::format("{}{}", i * i, i % 3 ? "!" : "?")}}}}};
    file << row.dump() << '\n';
  }
}

recipes::Recipe tiny_recipe(const std::string& directory) {
  const fs::path root = directory;
  write_tiny_directory((root / "model").string());
  write_tiny_rows((root / "rows.jsonl").string(), 23);
  write_tiny_rows((root / "eval.jsonl").string(), 5);
  recipes::Recipe recipe;
  recipe.model.path = (root / "model").string();
  recipe.quantization.method = "nf4";
  recipe.quantization.block_size = 32;
  recipe.lora.rank = 4;
  recipe.lora.alpha = 8;
  recipe.lora.dropout = 0.1;
  recipe.data.train = {{(root / "rows.jsonl").string(), "chat", {}}};
  recipe.data.eval = {{(root / "eval.jsonl").string(), "chat", {}}};
  recipe.data.sequence_length = 128;
  recipe.optim.lr = 5e-3;
  recipe.optim.paged_resident_bytes = 40000;
  recipe.train.max_steps = 6;
  recipe.train.gradient_accumulation_steps = 2;
  recipe.train.save_every = 2;
  recipe.train.threads = 2;
  recipe.output.dir = (root / "run").string();
  return recipe;
}

}  // namespace qlora::test
