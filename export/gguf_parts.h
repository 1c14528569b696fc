// The merged tensors (merged_tensors.h) as a GGUF file names, orders and stacks them.
#pragma once

#include <string>
#include <vector>

#include "export/merged_tensors.h"
#include "model/gguf_description.h"

namespace qlora::exporting {

struct GgufPart {
  std::string name;  // "blk.0.attn_q.weight"
  std::vector<int64_t> shape;
  std::function<at::Tensor()> make;  // of this shape, on any device; borrows the model
};

// `description`: of this model.
std::vector<GgufPart> gguf_parts(const model::CausalLm& model,
                                 const model::GgufDescription& description,
                                 model::WeightSource* original);

}  // namespace qlora::exporting
