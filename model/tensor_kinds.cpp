#include "model/tensor_kinds.h"

#include <utility>

#include "io/safetensors.h"
#include "lora/module_path.h"
#include "model/expert_tensors.h"
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
    const std::string last = lora::last_name(path);
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
  for (const StackSpec* stack : {&a.encoder, &a.decoder})
    if (const RelativeBiasSpec& bias = stack->relative_bias; bias.present())
      tables.push_back({lora::last_name(bias.module),
                        {bias.module, bias.gguf_module},
                        bias.buckets * bias.heads});
  return tables;
}

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
    const std::string kind = lora::last_name(module);
    ranks_.try_emplace(kind, ranks_.size());
    add(kind, module, linear.names);
  });
  for_each_norm(a, [&](const std::string& module, const NormSpec& norm) {
    add("norms", module, norm.names);
    if (!norm.by_group) return;
    for (int64_t group = 0; group < norm.groups; ++group)
      modules_.emplace(split_name(norm.tensor(module, group)).first, Module{"norms", module});
  });
  for (int64_t layer = 0; layer < a.num_layers(); ++layer)
    for (const Branch& branch : a.block(layer).branches) {
      const std::string number = std::to_string(layer) + ".";
      if (const ExpertsSpec* experts = branch.experts())
        add_expert_files(*experts, a.decoder.prefix.hugging_face + number,
                         a.decoder.prefix.gguf + number);
      if (const AttentionSpec* attention = branch.attention();
          attention && attention->shape.sinks) {
        ranks_.try_emplace("sinks", ranks_.size());
        for (const std::string& name : {a.module(layer, attention->sinks),
                                        a.decoder.prefix.gguf + number + attention->sinks.gguf})
          modules_.emplace(name, Module{"sinks", name});
      }
    }
  add("head", a.head.names.hugging_face, a.head.names);
}

// The tensors of which experts' matrices are made.
void TensorKinds::add_expert_files(const ExpertsSpec& experts, const std::string& block,
                                   const std::string& gguf_block) {
  const auto add = [this](const std::string& module, const char* kind) {
    modules_.emplace(module, Module{kind, module});
  };
  const auto add_matrix = [&](const std::vector<std::string>& separate, const std::string& stacked,
                              const std::vector<std::string>& gguf, const std::string& kind) {
    for (int64_t e = 0; e < experts.routing.experts; ++e)
      for (const std::string& name : separate)
        if (!name.empty()) add(block + numbered(name, e), kind.c_str());
    if (!stacked.empty()) {
      add(split_name(block + stacked + (stacked.ends_with(".weight") ? "" : ".weight")).first,
          kind.c_str());
      for (const char* part : {"_blocks", "_scales"}) add(block + stacked + part, kind.c_str());
      add(block + stacked + "_bias", "biases");
    }
    for (const std::string& name : gguf) add(gguf_block + name, kind.c_str());
  };
  const ExpertFiles& files = experts.files;
  add_matrix({files.gate, files.up}, files.stacked_gate_up, {"ffn_gate_exps", "ffn_up_exps"},
             lora::last_name(experts.gate_up.names.hugging_face));
  add_matrix({files.down}, files.stacked_down, {"ffn_down_exps"},
             lora::last_name(experts.down.names.hugging_face));
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
