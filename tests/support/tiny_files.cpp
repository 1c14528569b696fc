#include "tests/support/tiny_files.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/byte_level_json.h"
#include "export/gguf_model.h"
#include "export/merged.h"
#include "io/gguf.h"
#include "io/json.h"
#include "model/families/family.h"
#include "model/gguf_names.h"
#include "model/load.h"
#include "model/made_weights.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"
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

namespace {

std::unique_ptr<model::CausalLm> made_model(const std::string& config) {
  const nlohmann::json parsed = nlohmann::json::parse(config);
  const auto source =
      model::made_weights(model::read_architecture(io::JsonNode(parsed, "config.json")));
  model::ModelOptions options;
  options.dtype = "bfloat16";
  quant::QuantizationOptions none;
  none.method = "none";
  return model::load_model(*source, options, none, at::kCPU, at::kFloat);
}

}  // namespace

void write_made_directory(const std::string& directory, const std::string& config) {
  fs::create_directories(directory);
  write_tokenizer(directory);
  write(fs::path(directory) / "config.json", config);
  exporting::write_merged(directory, *made_model(config), *data::load_tokenizer(directory), nullptr,
                          directory, at::kBFloat16);
}

void write_made_gguf(const std::string& path, const std::string& config) {
  const TempDir dir;
  write_tokenizer(dir.path());
  exporting::write_gguf_model(path, *made_model(config), *data::load_tokenizer(dir.path()), nullptr,
                              "made", exporting::gguf_type("q8_0"));
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

namespace {

using Metadata = std::vector<std::pair<std::string, io::GgufValue>>;

void add_gguf_tokenizer(Metadata& metadata) {
  std::vector<int64_t> types(256, 1);
  types.resize(kVocabulary, 3);
  const Metadata of_tokenizer = {{"tokenizer.ggml.model", std::string("gpt2")},
                                 {"tokenizer.ggml.pre", std::string("gpt-2")},
                                 {"tokenizer.ggml.tokens", tokens()},
                                 {"tokenizer.ggml.token_type", types},
                                 {"tokenizer.ggml.merges", std::vector<std::string>{}},
                                 {"tokenizer.ggml.eos_token_id", uint64_t{257}},
                                 {"tokenizer.chat_template", std::string(kChatMl)}};
  metadata.insert(metadata.end(), of_tokenizer.begin(), of_tokenizer.end());
}

struct GgufPart {
  io::TensorView header;
  at::Tensor value;
};

GgufPart gguf_part(const std::string& name, io::DType dtype, std::vector<int64_t> shape,
                   const at::Tensor& value) {
  GgufPart part;
  part.header.name = name;
  part.header.dtype = dtype;
  part.header.shape = std::move(shape);
  part.value = value.contiguous();
  return part;
}

void write_gguf(const std::string& path, const Metadata& metadata,
                const std::vector<GgufPart>& parts) {
  std::vector<io::TensorView> headers;
  for (const GgufPart& part : parts) headers.push_back(part.header);
  io::GgufWriter writer(path, metadata, headers);
  for (const GgufPart& part : parts)
    writer.write(part.header.name,
                 {static_cast<const std::byte*>(part.value.const_data_ptr()), part.value.nbytes()});
  writer.finish();
}

// Blocks [experts, rows, n, 16] with neighbours in a byte and their scales as blocks of 17 bytes,
// where a byte has numbers that are 16 apart.
at::Tensor ggml_blocks(const at::Tensor& blocks, const at::Tensor& scales) {
  const at::Tensor codes =
      at::stack({blocks.bitwise_and(15), blocks.bitwise_right_shift(4)}, -1).flatten(-2);
  const at::Tensor halves =
      codes.narrow(-1, 0, 16).bitwise_or(codes.narrow(-1, 16, 16).bitwise_left_shift(4));
  return at::cat({scales.unsqueeze(-1), halves}, -1);
}

GgufPart ggml_experts(const std::string& name, const at::Tensor& blocks, const at::Tensor& scales) {
  return gguf_part(name, io::DType::kMXFP4, {blocks.size(0), blocks.size(1), 32 * blocks.size(2)},
                   ggml_blocks(blocks, scales));
}

// The rows of gate and up take turns.
at::Tensor every_other(const at::Tensor& rows, int64_t first) {
  return rows.slice(1, first, std::nullopt, 2);
}

std::string replaced(std::string name, const std::string& part, const std::string& by) {
  if (const size_t at = name.find(part); at != std::string::npos) name.replace(at, part.size(), by);
  return name;
}

std::string name_in_gpt_oss_gguf(std::string name) {
  constexpr std::pair<const char*, const char*> kNames[] = {
      {"model.embed_tokens", "token_embd"},
      {"model.norm", "output_norm"},
      {"lm_head", "output"},
      {"model.layers", "blk"},
      {"input_layernorm", "attn_norm"},
      {"post_attention_layernorm", "post_attention_norm"},
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"self_attn.sinks", "attn_sinks.weight"},
      {"mlp.router", "ffn_gate_inp"}};
  for (const auto& [hugging_face, gguf] : kNames) name = replaced(name, hugging_face, gguf);
  return name;
}

void add_gpt_oss_parts(const std::string& name, const std::map<std::string, at::Tensor>& tensors,
                       std::vector<GgufPart>& parts) {
  const at::Tensor& tensor = tensors.at(name);
  const auto named = [&](const char* part, const char* gguf) {
    return replaced(name_in_gpt_oss_gguf(name), part, gguf);
  };
  const auto scales = [&] { return tensors.at(replaced(name, "_blocks", "_scales")); };
  const auto add_float = [&](const std::string& gguf, const at::Tensor& value) {
    parts.push_back(gguf_part(gguf, io::DType::kF32, value.sizes().vec(), value.to(at::kFloat)));
  };
  if (name.ends_with("_scales")) return;
  if (name.ends_with("gate_up_proj_blocks")) {
    const char* part = "mlp.experts.gate_up_proj_blocks";
    parts.push_back(ggml_experts(named(part, "ffn_gate_exps.weight"), every_other(tensor, 0),
                                 every_other(scales(), 0)));
    parts.push_back(ggml_experts(named(part, "ffn_up_exps.weight"), every_other(tensor, 1),
                                 every_other(scales(), 1)));
  } else if (name.ends_with("down_proj_blocks")) {
    parts.push_back(ggml_experts(named("mlp.experts.down_proj_blocks", "ffn_down_exps.weight"),
                                 tensor, scales()));
  } else if (name.ends_with("gate_up_proj_bias")) {
    const char* part = "mlp.experts.gate_up_proj_bias";
    add_float(named(part, "ffn_gate_exps.bias"), every_other(tensor, 0));
    add_float(named(part, "ffn_up_exps.bias"), every_other(tensor, 1));
  } else if (name.ends_with("down_proj_bias")) {
    add_float(named("mlp.experts.down_proj_bias", "ffn_down_exps.bias"), tensor);
  } else if (tensor.dim() == 2 && name.find("router") == std::string::npos) {
    parts.push_back(gguf_part(name_in_gpt_oss_gguf(name), io::DType::kBF16, tensor.sizes().vec(),
                              tensor.to(at::kBFloat16)));
  } else {
    add_float(name_in_gpt_oss_gguf(name), tensor);
  }
}

}  // namespace

void write_mxfp4_gguf(const std::string& directory, const std::string& path) {
  Metadata metadata = {{"general.architecture", std::string("gpt-oss")},
                       {"gpt-oss.block_count", uint64_t{2}},
                       {"gpt-oss.context_length", uint64_t{131072}},
                       {"gpt-oss.embedding_length", uint64_t{64}},
                       {"gpt-oss.feed_forward_length", uint64_t{32}},
                       {"gpt-oss.attention.head_count", uint64_t{4}},
                       {"gpt-oss.attention.head_count_kv", uint64_t{2}},
                       {"gpt-oss.rope.freq_base", 150000.0f},
                       {"gpt-oss.attention.layer_norm_rms_epsilon", 1e-5f},
                       {"gpt-oss.expert_count", uint64_t{4}},
                       {"gpt-oss.expert_used_count", uint64_t{2}},
                       {"gpt-oss.attention.key_length", uint64_t{16}},
                       {"gpt-oss.attention.value_length", uint64_t{16}},
                       {"gpt-oss.attention.sliding_window", uint64_t{128}},
                       {"gpt-oss.expert_feed_forward_length", uint64_t{32}},
                       {"gpt-oss.rope.scaling.type", std::string("yarn")},
                       {"gpt-oss.rope.scaling.factor", 32.0f},
                       {"gpt-oss.rope.scaling.original_context_length", uint64_t{4096}}};
  add_gguf_tokenizer(metadata);
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] :
       quant::read_tensors((fs::path(directory) / "model.safetensors").string()))
    tensors.emplace(name, tensor);
  std::vector<GgufPart> parts;
  for (const auto& [name, tensor] : tensors) add_gpt_oss_parts(name, tensors, parts);
  write_gguf(path, metadata, parts);
}

void write_tiny_gguf(const std::string& path) {
  const auto model = tiny_model(at::kBFloat16, 1, kVocabulary);
  const model::Architecture& c = model->architecture();
  const model::GgufNames names(c);
  const model::AttentionSpec& attention = c.block(0).attention();
  Metadata metadata = {
      {"general.architecture", std::string("llama")},
      {"llama.block_count", static_cast<uint64_t>(c.num_layers())},
      {"llama.embedding_length", static_cast<uint64_t>(c.hidden_size)},
      {"llama.feed_forward_length", static_cast<uint64_t>(c.block(0).branches[1].mlp()->inner)},
      {"llama.attention.head_count", static_cast<uint64_t>(attention.shape.heads)},
      {"llama.attention.head_count_kv", static_cast<uint64_t>(attention.shape.kv_heads)},
      {"llama.attention.layer_norm_rms_epsilon", static_cast<float>(c.decoder.final_norm.rule.eps)},
      {"llama.context_length", static_cast<uint64_t>(c.max_positions)}};
  add_gguf_tokenizer(metadata);
  std::vector<GgufPart> parts;
  for (const auto& [name, tensor] : model->frozen_state()) {
    at::Tensor value = tensor.to(at::kBFloat16).to(at::kFloat).contiguous();  // a directory's norms
    const model::GgufTensor stored = names.of_tensor(name);
    if (stored.rows == model::RowOrder::kRotaryPairs)
      value = pairs_from_halves(value, stored.attention.head_dim);
    parts.push_back(gguf_part(stored.name, io::DType::kF32, value.sizes().vec(), value));
  }
  write_gguf(path, metadata, parts);
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

void write_tiny_pairs(const std::string& path, int count) {
  std::ofstream file(path);
  for (int i = 0; i < count; ++i) {
    const auto message = [](const char* role, const std::string& text) {
      return nlohmann::ordered_json::array({{{"role", role}, {"content", text}}});
    };
    const nlohmann::ordered_json row = {
        {"prompt", message("user", fmt::format("say {}", i * i))},
        {"chosen", message("assistant", fmt::format("{}{}", i * i, i % 3 ? "!" : "?"))},
        {"rejected", message("assistant", i % 2 ? "no" : "not now")}};
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
