// All optimizers: one update of all tensors at once, with fp32 or 8-bit blockwise state, paged or
// not (Dettmers et al. 2022; QLoRA section 3). The rules are in update_rule.h, their arithmetic in
// update_kernels.h, where the state lives in pager.h.
//
// With 8-bit state, tensors below 4096 elements keep fp32 state. State by name, [..] the
// parameter's shape; state2 and absmax2 where the rule has a second state; ademamix has [2, ..] for
// state1 and absmax1:
//
//   fp32   <name>.state1, <name>.state2    fp32 [..]
//   8-bit  <name>.state1, <name>.state2    uint8 [..]
//          <name>.absmax1, <name>.absmax2  fp32 [ceil(numel / 256)]
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "optim/optimizer.h"
#include "optim/optimizer_names.h"
#include "optim/pager.h"
#include "optim/update_kernels.h"

namespace qlora::optim {

constexpr int64_t kLeastElementsFor8Bit = 4096;
// A multiple of 256, so that blocks never cross pages: 256 KiB a number of 8-bit state, 1 MiB of
// fp32.
constexpr int64_t kPageElements = 262144;

// The state of a run of elements as one page holds it: each state and then each absmax, at
// multiples of 16 bytes.
struct StateLayout {
  StateLayout(int64_t count, bool codes, int num_states);
  int64_t state_offset(int slot) const;
  int64_t absmax_offset(int slot) const;
  int64_t element_bytes, count, num_blocks;  // num_blocks 0: fp32 state
  int num_states;
  int64_t bytes;
};

// The pages of a parameter of that many elements.
std::vector<StateLayout> state_pages(int64_t numel, int state_bits, int num_states);

class FusedOptimizer final : public Optimizer {
 public:
  FusedOptimizer(const OptimizerOptions& options, std::vector<Parameter> parameters);

  void step(double lr, double gradient_scale) override;
  int64_t num_steps() const override { return num_steps_; }
  NamedTensors state() const override;
  void load_state(const NamedTensors& state, int64_t num_steps) override;
  int64_t device_bytes() const override { return pager_->plan().device_bytes; }
  int64_t host_bytes() const override { return pager_->plan().host_bytes; }
  PagingStatistics paging() const override { return pager_->statistics(); }

 private:
  struct Page {
    int64_t parameter;
    int64_t begin;  // first element
    StateLayout layout;
  };

  void make_pages();
  void make_runs();
  void upload_runs();
  void launch(const UpdateStep& step);
  // Between the two phases of lamb.
  void scale_updates();
  bool has_codes(int64_t parameter) const;
  // Empty tensors of the shapes state() gives, in its order.
  NamedTensors state_shapes(int64_t parameter) const;

  OptimizerOptions options_;
  OptimizerKind kind_;
  StateSlots slots_;
  std::vector<Parameter> parameters_;
  at::Device device_;
  std::vector<Page> pages_;
  std::vector<int64_t> first_pages_;  // of each parameter, and one past the end
  std::unique_ptr<Pager> pager_;
  std::vector<UpdateRun> runs_;           // one a page
  at::Tensor squares_;                    // lamb: UpdateRun::squares of all runs
  at::Tensor device_runs_, device_maps_;  // a GPU's copies
  int64_t num_steps_ = 0;
};

}  // namespace qlora::optim
