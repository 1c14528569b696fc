// Where a GGUF file keeps what transformers knows by another name, as llama.cpp's
// convert_hf_to_gguf.py and the package gguf (tensor_mapping.py) have it.
#pragma once

#include <string>
#include <unordered_map>

#include "model/architecture.h"

namespace qlora::model {

struct GgufTensor {
  std::string name;  // "blk.3.attn_q.weight"
  RowOrder rows = RowOrder::kAsIs;
  AttentionShape attention = {};  // whose rows they are
  double added = 0;               // to the weight of a norm
};

class GgufNames {
 public:
  GgufNames() = default;
  explicit GgufNames(const Architecture& architecture);
  // Of "model.layers.3.self_attn.q_proj.weight". Error if the architecture has no such tensor, or
  // GGUF none for it.
  GgufTensor of_tensor(const std::string& hugging_face) const;

 private:
  std::unordered_map<std::string, GgufTensor> modules_;   // by their Hugging Face names
  std::unordered_map<std::string, std::string> tensors_;  // that are no weight or bias of a module
};

}  // namespace qlora::model
