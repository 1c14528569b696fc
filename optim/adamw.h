// AdamW with fp32 or 8-bit blockwise state, paged or not (Loshchilov and Hutter 2019; Dettmers et
// al. 2022). The arithmetic is in adamw_kernels.h, where the state lives in pager.h.
//
// With 8-bit state, tensors below 4096 elements keep fp32 state. State by name, [..] the
// parameter's shape:
//
//   fp32   <name>.state1 fp32 [..], <name>.state2 fp32 [..]
//   8-bit  <name>.state1 uint8 [..], <name>.state2 uint8 [..], <name>.absmax1 and <name>.absmax2
//   fp32 [ceil(numel / 256)]
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "optim/adamw_kernels.h"
#include "optim/optimizer.h"
#include "optim/pager.h"

namespace qlora::optim {

constexpr int64_t kLeastElementsFor8Bit = 4096;
// A multiple of 256, so that blocks never cross pages: 0.5 MiB of 8-bit state, 2 MiB of fp32.
constexpr int64_t kPageElements = 262144;

// The state of a run of elements as one page holds it: state1, state2, absmax1, absmax2, each at a
// multiple of 16 bytes.
struct StateLayout {
  StateLayout(int64_t count, bool codes);
  int64_t element_bytes, count, num_blocks;  // num_blocks 0: fp32 state
  int64_t state2, absmax1, absmax2, bytes;   // offsets; state1 is at 0
};

// The pages of a parameter of that many elements.
std::vector<StateLayout> state_pages(int64_t numel, int state_bits);

class AdamW final : public Optimizer {
 public:
  AdamW(const OptimizerOptions& options, std::vector<Parameter> parameters);

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

  void make_pages(int state_bits);
  void make_runs();
  bool has_codes(int64_t parameter) const;
  // Empty tensors of the shapes state() gives, in its order.
  NamedTensors state_shapes(int64_t parameter) const;

  OptimizerOptions options_;
  std::vector<Parameter> parameters_;
  at::Device device_;
  std::vector<Page> pages_;
  std::vector<int64_t> first_pages_;  // of each parameter, and one past the end
  std::unique_ptr<Pager> pager_;
  std::vector<AdamwRun> runs_;            // one a page
  at::Tensor device_runs_, device_maps_;  // a GPU's copies
  int64_t num_steps_ = 0;
};

}  // namespace qlora::optim
