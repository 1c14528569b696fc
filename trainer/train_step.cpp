#include "trainer/train_step.h"

#include <ATen/core/Tensor.h>

#include <cmath>

#include "base/error.h"
#include "base/progress.h"
#include "base/seed.h"
#include "trainer/forward_input.h"

namespace qlora::trainer {
namespace {

std::string name_of_step(const TrainJob& job) {
  if (job.total_steps == 0) return "measuring a step";
  return fmt::format("step {} of {}", job.state.step + 1, job.total_steps);
}

}  // namespace

double accumulate_gradients(TrainJob& job, const data::StepWindow& window) {
  job.adapters.zero_gradients();
  job.objective->begin(window, job.state.loss_scale.value);
  Progress progress(name_of_step(job), static_cast<int64_t>(window.micro_batches.size()),
                    "micro-batches");
  double loss = 0;
  for (size_t i = 0; i < window.micro_batches.size(); ++i) {
    const data::MicroBatch& batch = window.micro_batches[i];
    model::ForwardInput input = forward_input(batch);
    input.training = true;
    input.recompute_layers = job.state.choices.recompute_layers;
    input.dropout_key = random_key(random_key(job.seed, static_cast<uint64_t>(job.state.step)), i);
    const MicroBatchLoss part = job.objective->loss(job.model, input, batch);
    if (!std::isfinite(part.value))
      fail<DivergenceError>(
          "step {}: the loss is {} (micro-batch {}, first row {}); lower optim.lr or check that "
          "row",
          job.state.step + 1, part.value, i, batch.examples.empty() ? -1 : batch.examples.front());
    part.scaled_loss.backward();
    loss += part.value;
    progress.advance();
  }
  return loss;
}

}  // namespace qlora::trainer
