#include "tests/support/small_run.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/seed.h"

namespace qlora::test {
namespace {

std::vector<data::Example> random_examples(int count) {
  std::vector<data::Example> examples;
  for (int row = 0; row < count; ++row) {
    data::Example example;
    example.row = row;
    const auto length = 4 + uniform_integer(11, static_cast<uint64_t>(row), 9);
    for (uint64_t i = 0; i < length; ++i) {
      example.tokens.push_back(static_cast<data::TokenId>(
          uniform_integer(random_key(12, static_cast<uint64_t>(row)), i, 61)));
      example.supervised.push_back(i >= 2);
    }
    examples.push_back(example);
  }
  return examples;
}

}  // namespace

SmallRun::SmallRun(int64_t total_steps, data::LoaderOptions loading, at::ScalarType compute,
                   const lora::LoraOptions* lora)
    : model(tiny_model(compute)),
      adapters(lora == nullptr
                   ? tiny_adapters(*model, false, 0.1)
                   : std::make_unique<lora::AdapterSet>(*lora, model->parts(), compute, 3)) {
  options.name = "paged_adamw_8bit";
  options.schedule = "linear";
  options.lr = 1e-2;
  std::vector<optim::Parameter> parameters;
  for (const auto& t : adapters->tensors()) parameters.push_back({t.name, t.value, t.gradient});
  optimizer = optim::make_optimizer(options, parameters);
  loader = std::make_unique<data::Loader>(random_examples(23), loading);
  job.reset(new trainer::TrainJob{*model, *adapters, *optimizer, parameters,
                                  optim::LrSchedule(options, 10), *loader, state});
  job->total_steps = total_steps;
  job->seed = 5;
  job->scales_loss = compute == at::kHalf;
  if (job->scales_loss) state.loss_scale.value = trainer::kFirstLossScale;
  job->report = [this](const trainer::StepMetrics& m) { losses.push_back(m.loss); };
  job->evaluate = [] {};
  job->save = [this] { ++saves; };
}

void SmallRun::go_on_from(const SmallRun& other) {
  at::NoGradGuard no_grad;
  at::Tensor masters = adapters->values();
  masters.copy_(other.adapters->values());
  adapters->publish();
  optimizer->load_state(other.optimizer->state(), other.optimizer->num_steps());
  state = other.state;
}

}  // namespace qlora::test
