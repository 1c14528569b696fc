#include "model/footprint.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json.h"
#include "quant/frozen_size.h"

namespace qlora::model {
namespace {

constexpr const char* kOrder[] = {"embedding", "q_proj",    "k_proj",  "v_proj",    "o_proj",
                                  "qkv_proj",  "gate_proj", "up_proj", "down_proj", "gate_up_proj",
                                  "norms",     "biases",    "head",    "other"};
constexpr const char* kPackedState = ".quant_state.bitsandbytes__";

// One weight, its packed parts gathered.
struct Weight {
  std::string module;  // "model.layers.0.self_attn.q_proj", "blk.0.attn_q"
  std::string kind, format;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
  bool packed = false;  // by bitsandbytes
  bool blocks = false;  // of GGUF

  int64_t parameters() const {
    int64_t n = 1;
    for (const int64_t size : shape) n *= size;
    return n;
  }
};

std::string kind_of(const std::string& module) {
  static const std::map<std::string, std::string> of_gguf = {
      {"attn_q", "q_proj"},     {"attn_k", "k_proj"},          {"attn_v", "v_proj"},
      {"attn_qkv", "qkv_proj"}, {"attn_output", "o_proj"},     {"ffn_gate", "gate_proj"},
      {"ffn_up", "up_proj"},    {"ffn_down", "down_proj"},     {"token_embd", "embedding"},
      {"output", "head"},       {"embed_tokens", "embedding"}, {"lm_head", "head"}};
  const std::string last = module.substr(module.rfind('.') + 1);
  if (const auto found = of_gguf.find(last); found != of_gguf.end()) return found->second;
  if (last.ends_with("norm")) return "norms";
  for (const char* kind : kOrder)
    if (last == kind) return last;
  return "other";
}

bool is_linear(const std::string& kind) { return kind.ends_with("_proj"); }

std::string format_of(io::DType dtype) {
  switch (dtype) {
    case io::DType::kF32:
      return "float32";
    case io::DType::kF16:
      return "float16";
    case io::DType::kBF16:
      return "bfloat16";
    default:
      return io::dtype_name(dtype);
  }
}

// "a.q_proj.weight.absmax" -> "a.q_proj" and ".weight.absmax".
std::pair<std::string, std::string> split_name(const std::string& name) {
  if (const size_t part = name.find(".weight."); part != std::string::npos)
    return {name.substr(0, part), name.substr(part)};
  const size_t dot = name.rfind('.');
  return dot == std::string::npos ? std::pair(name, std::string())
                                  : std::pair(name.substr(0, dot), name.substr(dot));
}

void read_packed_state(const io::TensorView& view, const std::string& code, Weight& weight) {
  const std::string place = view.file + ": " + view.name;
  const std::string_view text(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size());
  const nlohmann::json document = io::parse_json(text, place);
  const io::JsonNode state(document, place);
  weight.shape.clear();
  for (const io::JsonNode& size : state.at("shape").elements())
    weight.shape.push_back(size.as_integer(1, int64_t{1} << 40));
  weight.format = code + (state.find("nested_blocksize") ? "+dq" : "");
  weight.packed = true;
}

void add_part(const io::TensorView& view, const std::string& suffix, Weight& weight) {
  weight.bytes += static_cast<int64_t>(view.bytes.size());
  if (const size_t state = suffix.find(kPackedState); state != std::string::npos) {
    read_packed_state(view, suffix.substr(state + std::string(kPackedState).size()), weight);
  } else if (suffix == ".SCB") {
    weight.format = "int8";
    weight.packed = true;
  } else if (suffix == ".weight" && !weight.packed) {
    weight.shape = view.shape;
    weight.format = format_of(view.dtype);
    weight.blocks = io::is_block_type(view.dtype);
  } else if (suffix == ".weight" && weight.format == "int8") {
    weight.shape = view.shape;
  }
}

std::vector<Weight> weights_of(const std::vector<io::TensorView>& tensors) {
  std::map<std::string, Weight> weights;
  for (const io::TensorView& view : tensors) {
    auto [module, suffix] = split_name(view.name);
    const bool bias = suffix == ".bias";
    Weight& weight = weights[bias ? view.name : module];
    weight.module = module;
    weight.kind = bias ? "biases" : kind_of(module);
    add_part(view, bias ? ".weight" : suffix, weight);
  }
  std::vector<Weight> all;
  for (auto& [name, weight] : weights)
    if (!weight.shape.empty()) all.push_back(std::move(weight));
  return all;
}

void keep_as_loaded(Weight& weight, const quant::QuantizationOptions& options,
                    at::ScalarType dtype) {
  const bool kept_blocks = weight.blocks && is_linear(weight.kind) && options.method == "as_stored";
  if (weight.packed || kept_blocks || weight.kind == "other") return;
  const at::ScalarType held = weight.kind == "norms" ? at::kFloat : dtype;
  if (is_linear(weight.kind)) {
    const auto size = quant::frozen_size(quant::WeightShape::of(weight.shape, "footprint"), held,
                                         options, weight.module);
    weight.format = size.format;
    weight.bytes = size.bytes;
  } else {
    weight.format = quant::dense_format(held);
    weight.bytes = weight.parameters() * static_cast<int64_t>(c10::elementSize(held));
  }
}

std::vector<FootprintRow> rows_of(const std::vector<Weight>& weights) {
  std::vector<FootprintRow> rows;
  for (const char* kind : kOrder) {
    std::map<std::string, FootprintRow> of_kind;
    for (const Weight& weight : weights) {
      if (weight.kind != kind) continue;
      FootprintRow& row = of_kind[weight.format];
      row.kind = kind;
      row.format = weight.format;
      ++row.count;
      row.parameters += weight.parameters();
      row.bytes += weight.bytes;
    }
    for (auto& [format, row] : of_kind) rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace

std::vector<FootprintRow> stored_footprint(const std::vector<io::TensorView>& tensors) {
  return rows_of(weights_of(tensors));
}

std::vector<FootprintRow> kept_footprint(const std::vector<io::TensorView>& tensors,
                                         const quant::QuantizationOptions& options,
                                         at::ScalarType dtype, bool tied_embeddings) {
  std::vector<Weight> weights = weights_of(tensors);
  if (tied_embeddings)
    std::erase_if(weights, [](const Weight& weight) { return weight.kind == "head"; });
  for (Weight& weight : weights) keep_as_loaded(weight, options, dtype);
  return rows_of(weights);
}

}  // namespace qlora::model
