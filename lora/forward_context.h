// What one forward pass shares between its layers: scratch memory, whether adapters act, and the
// key of its dropout.
#pragma once

#include <cstdint>

#include "quant/workspace.h"

namespace qlora::lora {

struct ForwardContext {
  quant::Workspace* workspace = nullptr;
  bool adapters_enabled = true;  // false: the base model alone ("before" samples, a DPO reference)
  bool training = false;         // dropout acts only here
  // Inputs that can be made again from what is kept are not kept; not where whole layers are.
  bool remakes_inputs = false;
  // Outputs are only differentiated, their values unspecified: the last product of a layer that is
  // recomputed for its backward pass.
  bool output_unused = false;
  // Changes with every micro-batch and is the same when a layer is recomputed, so that its dropout
  // mask is, too.
  uint64_t dropout_key = 0;
};

}  // namespace qlora::lora
