// How the tensors of a model lie in Hugging Face files where that is not as its modules have them:
// under other names (Architecture::file_names), matrices as [in, out] (the Conv1D of GPT-2).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <unordered_set>
#include <vector>

#include "model/architecture.h"
#include "quant/frozen_weight.h"

namespace qlora::model {

class FileLayout {
 public:
  FileLayout() = default;
  explicit FileLayout(const Architecture& architecture);

  // "embed_out.weight" of "lm_head.weight", and back.
  std::string in_files(const std::string& tensor) const;
  std::string in_model(const std::string& tensor) const;
  // Whether the tensor of this name, if it is not packed, is [in, out] in files.
  bool is_by_inputs(const std::string& tensor) const { return by_inputs_.contains(tensor); }
  // As files have it. Parts of packed weights stay as they are.
  at::Tensor in_files(const std::string& name, const at::Tensor& tensor) const;

 private:
  std::vector<FileName> names_;
  std::unordered_set<std::string> by_inputs_;
};

}  // namespace qlora::model
