#include "model/tensor_kinds.h"

#include <utility>

#include "io/safetensors.h"
#include "model/gguf_names.h"
#include "model/tensor_spellings.h"

namespace qlora::model {
namespace {

constexpr const char* kBehindTheLayers[] = {"norms", "biases", "head", "other"};

// "a.q_proj.weight.absmax" -> "a.q_proj" and ".weight.absmax".
std::pair<std::string, std::string> split_name(const std::string& name) {
  if (const size_t part = name.find(".weight."); part != std::string::npos)
    return {name.substr(0, part), name.substr(part)};
  const size_t dot = name.rfind('.');
  return dot == std::string::npos ? std::pair(name, std::string())
                                  : std::pair(name.substr(0, dot), name.substr(dot));
}

// The weight itself, or what bitsandbytes stores beside it.
bool is_part_of_weight(const std::string& part) {
  return part == ".weight" || part.starts_with(".weight.") || part == ".SCB" ||
         part == ".weight_format";
}

// The last part of a path that is no number.
std::string last_word(std::string path) {
  for (;;) {
    const std::string last = last_name(path);
    if (last.size() == path.size() || last.find_first_not_of("0123456789") != std::string::npos)
      return last;
    path.resize(path.size() - last.size() - 1);
  }
}

// "input_layernorm", "attn_norm", "ln_1".
bool is_norm(const std::string& name) {
  return name.find("norm") != std::string::npos || name.starts_with("ln");
}

TensorKind by_own_name(const std::string& name) {
  const auto [module, part] = split_name(name);
  const bool of_module = is_part_of_weight(part) || part == ".bias";
  const std::string kind = last_word(of_module ? module : name);
  if (part == ".bias" && !is_norm(kind)) return {"biases", name, ".weight"};
  return {is_norm(kind) ? "norms" : kind, of_module ? module : name, of_module ? part : ".weight"};
}

}  // namespace

std::vector<LookupTable> lookup_tables(const Architecture& a) {
  const EmbeddingSpec& embedding = a.embedding;
  std::vector<LookupTable> tables = {
      {"embedding", embedding.names, a.vocab_size * embedding.width}};
  if (const PositionSpec& learned = embedding.positions; learned.present())
    tables.push_back({"positions", learned.names, learned.rows * a.hidden_size});
  return tables;
}

std::string last_name(const std::string& module) { return module.substr(module.rfind('.') + 1); }

TensorKinds::TensorKinds(const std::vector<io::TensorView>& tensors,
                         const Architecture* architecture)
    : described_(architecture != nullptr) {
  if (architecture) {
    add_modules(*architecture);
    io::TensorFile file;
    file.tensors = tensors;
    name_as_transformers_does(*architecture, file);
    for (const io::TensorView& tensor : file.tensors) spelled_[tensor.bytes.data()] = tensor.name;
  } else {
    for (const io::TensorView& tensor : tensors)
      ranks_.try_emplace(by_own_name(tensor.name).kind, ranks_.size());
  }
  size_t rank = ranks_.size();
  for (const char* kind : kBehindTheLayers) ranks_[kind] = rank++;
}

void TensorKinds::add_modules(const Architecture& a) {
  const GgufNames gguf(a);
  const auto add = [&](const std::string& kind, const std::string& module,
                       const TensorNames& names) {
    modules_.emplace(module, Module{kind, module});
    if (names.gguf.empty()) return;
    modules_.emplace(split_name(gguf.of_tensor(module + ".weight").name).first,
                     Module{kind, module});
  };
  for (const LookupTable& table : lookup_tables(a)) {
    ranks_.try_emplace(table.kind, ranks_.size());
    add(table.kind, table.names.hugging_face, table.names);
  }
  for_each_linear(a, [&](const std::string& module, const LinearSpec& linear) {
    const std::string kind = last_name(module);
    ranks_.try_emplace(kind, ranks_.size());
    add(kind, module, linear.names);
  });
  for_each_norm(a, [&](const std::string& module, const NormSpec& norm) {
    add("norms", module, norm.names);
    if (!norm.by_group) return;
    for (int64_t group = 0; group < norm.groups; ++group)
      modules_.emplace(split_name(norm.tensor(module, group)).first, Module{"norms", module});
  });
  add("head", a.head.names.hugging_face, a.head.names);
}

std::optional<TensorKind> TensorKinds::find(const std::string& name) const {
  const auto [module, part] = split_name(name);
  if (const auto found = modules_.find(module); found != modules_.end()) {
    const Module& its = found->second;
    const bool is_bias = part == ".bias";
    if (is_part_of_weight(part) || (is_bias && its.kind == "norms"))
      return TensorKind{its.kind, its.name, part};
    return TensorKind{is_bias ? "biases" : its.kind, name, ".weight"};
  }
  // A weight that is stored without a suffix, as stacked experts are.
  if (const auto found = modules_.find(name); found != modules_.end())
    return TensorKind{found->second.kind, found->second.name, ".weight"};
  return std::nullopt;
}

TensorKind TensorKinds::of(const io::TensorView& tensor) const {
  if (!described_) return by_own_name(tensor.name);
  if (auto known = find(tensor.name)) return *known;
  if (const auto spelled = spelled_.find(tensor.bytes.data()); spelled != spelled_.end())
    if (auto known = find(spelled->second)) return *known;
  return {"other", tensor.name, ".weight"};
}

}  // namespace qlora::model
