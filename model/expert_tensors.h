// The matrices and biases of single experts, by the names of their modules' tensors, from files
// that hold them as two, as one, or stacked (ExpertFiles).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/tensor_view.h"
#include "model/architecture.h"
#include "quant/frozen_weight.h"

namespace qlora::model {

// One of them: "model.layers.3.mlp.experts.7.gate_up_proj.weight".
struct ExpertTensor {
  const ExpertsSpec* spec;
  std::string block, gguf_block;  // "model.layers.3.", "blk.3."
  int64_t expert;
  bool is_gate_up, is_bias;
};

// "mlp.experts.7.w1" of "mlp.experts.{}.w1".
std::string numbered(std::string name, int64_t expert);

// Of that name; nothing for any other tensor. Borrows the architecture.
std::optional<ExpertTensor> expert_tensor(const Architecture& architecture,
                                          const std::string& name);

// The modules of gate and up, or of down, where files have a matrix for each; none in families that
// stack them.
std::vector<std::string> separate_modules(const ExpertTensor& tensor);

// A tensor of the file by its name, or null.
using FindView = std::function<const io::TensorView*(const std::string& name)>;

// The parts of the file's tensors that make the expert's, one below the other, and their names;
// empty if the file does not have it. [out, in], or [out] of a bias; FormatError if a stack is of
// another shape.
struct ExpertParts {
  std::vector<io::TensorView> views;
  bool by_inputs = false;  // [in, out]
  bool in_turn = false;    // rows (or columns, if by_inputs) of gate and up take turns
  bool is_mxfp4 = false;   // blocks, and their scales
};
ExpertParts in_hugging_face(const ExpertTensor& tensor, const FindView& find);
ExpertParts in_gguf(const ExpertTensor& tensor, const FindView& find);

// In `dtype`. FormatError as of read_tensor().
at::Tensor read_expert(const ExpertTensor& tensor, const ExpertParts& parts, at::ScalarType dtype);

// The matrix in MXFP4 as the file has it, with the rows of gate and up one below the other; null if
// the file holds it in another form. FormatError as of read_mxfp4().
std::unique_ptr<quant::FrozenWeight> read_packed_expert(const ExpertParts& parts,
                                                        at::Device device);

}  // namespace qlora::model
