// The interface of all optimizers. Parameters and gradients are views of flat fp32 buffers, one
// group a parameter tensor; state is listed by name so that a checkpoint can carry it and a resumed
// run continue bit for bit.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "optim/optimizer_options.h"

namespace qlora::optim {

// One trained tensor. `value` and `gradient` are fp32, contiguous, same shape, on the same device;
// their memory stays where it is for the optimizer's life.
struct Parameter {
  std::string name;
  at::Tensor value;
  at::Tensor gradient;
  double lr_scale = 1.0;       // LoRA+ and the like
  double weight_decay = -1.0;  // < 0: the optimizer's
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// What a paged optimizer moved since it was made. All zero for the others, and as long as all state
// is resident.
struct PagingStatistics {
  int64_t bytes_to_device = 0;
  int64_t bytes_to_host = 0;
  int64_t evictions = 0;  // pages written back
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One update of every parameter with this learning rate. `gradient_scale` multiplies each
  // gradient first (clipping).
  virtual void step(double lr, double gradient_scale) = 0;
  // Number of step() calls so far.
  virtual int64_t num_steps() const = 0;
  // The state as named tensors on the CPU ("<parameter>.state1", ".absmax1", ...), and back. load:
  // FormatError if a tensor is missing, unexpected or of another shape or dtype, or holds what no
  // step could have written; the optimizer is then as before.
  virtual NamedTensors state() const = 0;
  virtual void load_state(const NamedTensors& state, int64_t num_steps) = 0;
  // Bytes the state takes on the device and, paged out, on the host.
  virtual int64_t device_bytes() const = 0;
  virtual int64_t host_bytes() const = 0;
  virtual PagingStatistics paging() const { return {}; }
};

// ConfigError if the options are wrong, Error if a parameter is not what it must be.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options,
                                          std::vector<Parameter> parameters);

struct StateBytes {
  int64_t device = 0;
  int64_t host = 0;
};
// What the state of parameters of these sizes will take, before anything is allocated.
StateBytes optimizer_state_bytes(const OptimizerOptions& options,
                                 const std::vector<int64_t>& parameter_sizes, bool on_gpu);

}  // namespace qlora::optim
