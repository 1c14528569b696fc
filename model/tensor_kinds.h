// What the tensors of a model's files are: which row of a footprint each belongs to, and what it is
// a part of. The model's description says so, by the names that Hugging Face and GGUF give its
// modules; in files of a family that is not read, a tensor goes by the last part of its own name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "io/tensor_view.h"
#include "model/architecture.h"

namespace qlora::model {

struct TensorKind {
  // "embedding"; the last name of a linear layer, "q_proj"; "norms"; "biases", which are those of
  // linear layers; "head"; "other", which the description does not have.
  std::string kind;
  // What is counted as one, by its Hugging Face name: "model.layers.0.self_attn.q_proj". A tensor
  // that is counted by itself has its own name here.
  std::string module;
  // ".weight", ".weight.absmax", ".SCB", or ".bias" of a norm; ".weight" where it is all there is.
  std::string part;
};

class TensorKinds {
 public:
  // `tensors`: all of the model's, by the names that they have in its files, which may lie under
  // another prefix (tensor_spellings.h). Without an architecture every name is taken as it is.
  TensorKinds(const std::vector<io::TensorView>& tensors, const Architecture* architecture);

  // Of one of these tensors.
  TensorKind of(const io::TensorView& tensor) const;
  // Where a kind that of() gives stands in the order of a forward pass: the embedding, the linear
  // layers, and then norms, biases, head, other. Without an architecture the files' order counts.
  size_t rank(const std::string& kind) const { return ranks_.at(kind); }

 private:
  struct Module {
    std::string kind, name;
  };
  void add_modules(const Architecture& architecture);
  void add_expert_files(const ExpertsSpec& experts, const std::string& block,
                        const std::string& gguf_block);
  std::optional<TensorKind> find(const std::string& name) const;

  bool described_ = false;
  std::unordered_map<std::string, Module> modules_;  // by the names of both kinds of files
  // What transformers calls tensors, by where their bytes begin.
  std::unordered_map<const std::byte*, std::string> spelled_;
  std::unordered_map<std::string, size_t> ranks_;
};

// A matrix of the description whose rows are looked up.
struct LookupTable {
  std::string kind;
  TensorNames names;
  int64_t numbers = 0;
};
std::vector<LookupTable> lookup_tables(const Architecture& architecture);

}  // namespace qlora::model
