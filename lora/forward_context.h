// What one forward pass shares between its layers: scratch memory, whether adapters act, the key of
// its dropout, and who watches it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "quant/workspace.h"

namespace qlora::lora {

class LinearGroup;

// Is shown what a group of linear layers reads, [tokens, in], before it computes with it. May leave
// the pass by an exception.
using InputObserver = std::function<void(const LinearGroup& group, const at::Tensor& x)>;

struct ForwardContext {
  quant::Workspace* workspace = nullptr;
  bool adapters_enabled = true;  // false: the base model alone ("before" samples, a DPO reference)
  bool training = false;         // dropout acts only here
  // Inputs that can be made again from what is kept are not kept; not where whole layers are.
  bool remakes_inputs = false;
  // Outputs are only differentiated, their values unspecified: the last product of a layer that is
  // recomputed for its backward pass.
  bool output_unused = false;
  // The next product has another number of rows, as an expert's: a library that compiles a kernel
  // for each number, as oneDNN does, would not stop doing so.
  bool rows_vary = false;
  // Changes with every micro-batch and is the same when a layer is recomputed, so that its dropout
  // mask is, too.
  uint64_t dropout_key = 0;
  const InputObserver* observer = nullptr;
};

}  // namespace qlora::lora
