// Everything of one small run of the training loop, in memory: a test can stop it, copy its state
// and go on.
#pragma once

#include <memory>
#include <vector>

#include "tests/support/tiny_model.h"
#include "trainer/train_loop.h"

namespace qlora::test {

struct SmallRun {
  std::unique_ptr<model::CausalLm> model;
  std::unique_ptr<lora::AdapterSet> adapters;
  optim::OptimizerOptions options;  // paged 8-bit AdamW, linear schedule over ten steps, rate 1e-2
  std::unique_ptr<optim::Optimizer> optimizer;
  std::unique_ptr<data::Loader> loader;
  trainer::TrainState state;
  std::vector<double> losses;
  std::unique_ptr<trainer::TrainJob> job;
  int saves = 0;

  // 23 random rows, packed to 24 tokens, two sequences a micro-batch, two micro-batches a step.
  // kHalf: with loss scaling, as a recipe sets it up. `lora` instead of tiny_adapters().
  explicit SmallRun(int64_t total_steps, data::LoaderOptions loading = {24, true, true, 2, 2, 5},
                    at::ScalarType compute = at::kBFloat16,
                    const lora::LoraOptions* lora = nullptr);

  // Takes over masters, optimizer and TrainState, as a checkpoint would hand them on.
  void go_on_from(const SmallRun& other);
};

}  // namespace qlora::test
