#include "export/gguf_types.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "base/error.h"
#include "model/gguf_names.h"

namespace qlora::exporting {
namespace {
using io::DType;

constexpr int64_t kWholeBlocks = 256;  // weights of a row that fill blocks of every type

const std::array<GgufType, 11>& all_types() {
  static const std::array<GgufType, 11> types = {{{"f16", DType::kF16, 1},
                                                  {"bf16", DType::kBF16, 32},
                                                  {"f32", DType::kF32, 0},
                                                  {"q8_0", DType::kQ8_0, 7},
                                                  {"q4_0", DType::kQ4_0, 2},
                                                  {"q4_1", DType::kQ4_1, 3},
                                                  {"q5_0", DType::kQ5_0, 8},
                                                  {"q5_1", DType::kQ5_1, 9},
                                                  {"q4_k_m", DType::kQ4_K, 15},
                                                  {"q5_k_m", DType::kQ5_K, 17},
                                                  {"q6_k", DType::kQ6_K, 18}}};
  return types;
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// Small, or dear.
bool stays_float(const std::string& tensor, const std::vector<int64_t>& shape) {
  return shape.size() < 2 || !tensor.ends_with(".weight") || tensor.ends_with("_norm.weight") ||
         contains(tensor, "ffn_gate_inp") || contains(tensor, "attn_rel_b") ||
         tensor.starts_with("position_embd");
}

// "blk.12.ffn_down.weight" -> 12
int64_t layer_of(const std::string& tensor) {
  int64_t layer = 0;
  const size_t begin = tensor.find('.') + 1;
  std::from_chars(tensor.data() + begin, tensor.data() + tensor.size(), layer);
  return layer;
}

// The first and last eighth of the layers, and every third between.
bool has_more_bits(int64_t layer, int64_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

// The names that contain `part`, sorted.
std::vector<std::string> linear_names(const model::Architecture& model, const char* part) {
  const model::GgufNames names(model);
  std::vector<std::string> found;
  for (const std::string& module : model.linear_modules())
    if (std::string name = names.of_tensor(module + ".weight").name; contains(name, part))
      found.push_back(std::move(name));
  std::ranges::sort(found);
  return found;
}

int64_t index_in(const std::vector<std::string>& sorted, const std::string& name) {
  return std::ranges::lower_bound(sorted, name) - sorted.begin();
}

DType that_fits(DType type, int64_t columns) {
  const auto fits = [columns](DType t) { return columns % io::elements_per_block(t) == 0; };
  if (fits(type)) return type;
  const DType smaller = type == DType::kQ4_K   ? DType::kQ5_0
                        : type == DType::kQ5_K ? DType::kQ5_1
                        : type == DType::kQ6_K ? DType::kQ8_0
                                               : DType::kF16;
  return fits(smaller) ? smaller : DType::kF16;
}

bool has_layers_and_shared_keys(const model::GgufDescription& description, int64_t layers) {
  const model::AttentionShape& attention = description.model.block(0).attention().shape;
  return description.model.num_layers() == layers && attention.heads != attention.kv_heads &&
         (description.architecture == "llama" || description.architecture == "qwen2");
}

bool has_eight_experts(const model::Architecture& model) {
  for (const model::BlockSpec& kind : model.decoder.kinds)
    for (const model::Branch& branch : kind.branches)
      if (branch.experts()) return branch.experts()->routing.experts == 8;
  return false;
}

}  // namespace

const GgufType& gguf_type(const std::string& name) {
  std::vector<std::string> known;
  for (const GgufType& type : all_types()) {
    if (type.name == name) return type;
    known.push_back(type.name);
  }
  fail<ConfigError>("--type must be one of {}, found '{}'", fmt::join(known, ", "), name);
}

GgufTypes::GgufTypes(const GgufType& type, const model::GgufDescription& description)
    : type_(type),
      is_falcon_(description.architecture == "falcon"),
      is_tied_(description.model.tied_embeddings),
      has_eight_experts_(has_eight_experts(description.model)),
      is_70b_(has_layers_and_shared_keys(description, 80)),
      num_layers_(description.model.num_layers()) {
  const model::Architecture& model = description.model;
  if (!model.has_encoder()) return;
  num_layers_ = model.encoder.num_layers();
  values_ = linear_names(model, "attn_v.");
  downs_ = linear_names(model, "ffn_down.");
}

// llama.cpp takes blocks by their numbers, and those of encoder and decoder, where it sees none, by
// their names: "dec.blk.10" before "dec.blk.2". It counts all matrices of values, but as many of
// the MLPs' last as the encoder has layers.
GgufTypes::Place GgufTypes::place_of_values(const std::string& tensor) const {
  if (values_.empty()) return {layer_of(tensor), num_layers_};
  return {index_in(values_, tensor), static_cast<int64_t>(values_.size())};
}

GgufTypes::Place GgufTypes::place_of_down(const std::string& tensor) const {
  return {downs_.empty() ? layer_of(tensor) : index_in(downs_, tensor), num_layers_};
}

io::DType GgufTypes::of(const std::string& tensor, const std::vector<int64_t>& shape) const {
  if (stays_float(tensor, shape)) return DType::kF32;
  if (!type_.is_quantized()) return type_.dtype;
  return that_fits(chosen(tensor, shape.back()), shape.back());
}

io::DType GgufTypes::of_whole_blocks(const std::string& tensor,
                                     const std::vector<int64_t>& shape) const {
  std::vector<int64_t> whole = shape;
  if (!whole.empty()) whole.back() = kWholeBlocks;
  return of(tensor, whole);
}

io::DType GgufTypes::chosen(const std::string& tensor, int64_t columns) const {
  if (tensor == "output.weight" || (is_tied_ && tensor == "token_embd.weight")) {
    if (is_falcon_ || columns % io::elements_per_block(type_.dtype) != 0) return DType::kQ8_0;
    return type_.dtype == DType::kQ8_0 ? type_.dtype : DType::kQ6_K;
  }
  const bool in_one_matrix = contains(tensor, "attn_qkv.");
  if (in_one_matrix || contains(tensor, "attn_v.")) return of_values(place_of_values(tensor));
  if (contains(tensor, "attn_k.") && has_eight_experts_) return DType::kQ8_0;
  if (contains(tensor, "ffn_down")) return of_down(place_of_down(tensor));
  if (contains(tensor, "attn_output.") && has_eight_experts_ && !is_falcon_ &&
      type_.name == "q4_k_m")
    return DType::kQ5_K;
  return type_.dtype;
}

io::DType GgufTypes::of_values(Place place) const {
  if (has_eight_experts_) return DType::kQ8_0;
  DType type = type_.dtype;
  if (type_.name.ends_with("_k_m") && has_more_bits(place.index, place.count)) type = DType::kQ6_K;
  return is_70b_ && type == DType::kQ4_K ? DType::kQ5_K : type;
}

io::DType GgufTypes::of_down(Place place) const {
  if (!type_.name.ends_with("_k_m")) return type_.dtype;
  const bool more = has_more_bits(place.index, place.count);
  if (is_falcon_ && type_.name == "q4_k_m")
    return place.index < place.count / 16 ? DType::kQ6_K : more ? DType::kQ5_K : DType::kQ4_K;
  return more ? DType::kQ6_K : type_.dtype;
}

}  // namespace qlora::exporting
