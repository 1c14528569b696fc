#include "recipes/plan/forecast.h"

#include <algorithm>

#include "base/arena_allocator.h"
#include "base/device.h"
#include "base/log.h"
#include "base/processor_share.h"
#include "base/stopwatch.h"
#include "model/model_header.h"
#include "recipes/plan/costly_settings.h"
#include "recipes/plan/free_memory.h"
#include "recipes/plan/placement.h"
#include "recipes/plan/plan.h"
#include "recipes/run/ranks.h"
#include "trainer/memory_fit.h"
#include "trainer/product_rate.h"

namespace qlora::recipes {
namespace {

// With the choices that the run made, or will make.
trainer::PlannedRun run_of(const Recipe& recipe, const model::ModelHeader& header,
                           const trainer::TrainState& state, c10::Device device,
                           const distributed::Group& group) {
  trainer::PlannedRun run =
      planned_run(recipe, header, device.is_cuda(), group.size(), group.place().local_size);
  run.narrow_gates = state.choices.narrow_gates;
  if (state.horizon > 0) {
    run.recompute_layers = state.choices.recompute_layers;
    return run;
  }
  const int64_t free_bytes = free_memory_of_rank(device, group.place().local_size) -
                             trainer::plan_memory(run).loaded_bytes();
  run.recompute_layers = trainer::choose_recomputation(recipe.train.gradient_checkpointing, run,
                                                       free_within_limit(recipe, run, free_bytes));
  return run;
}

void warn_of_costly_settings(const trainer::PlannedRun& run, const Recipe& recipe,
                             const quant::QuantizationOptions& quantization,
                             const trainer::TrainState& state, c10::Device device,
                             distributed::Group& group) {
  MachineFacts facts;
  facts.compute_dtype = recipe.train.compute_dtype;
  facts.on_gpu = device.is_cuda();
  if (!facts.on_gpu)
    facts.rates =
        best_rates([&] { return trainer::product_rate(quantization, run.compute, device); },
                   [&] { return trainer::product_rate(quantization, at::kFloat, device); });
  facts.planned_bytes = trainer::plan_memory(run).peak();
  facts.free_bytes = free_memory_of_rank(device, group.place().local_size);
  facts.threads = state.choices.threads;
  facts.cores = cores_of_rank(group);
  facts.ranks = group.place().local_size;
  facts.goes_on = state.horizon > 0;
  for (const std::string& sentence : costly_settings(facts)) log::write_warning(sentence);
}

// Of adding the ranks' gradients.
double seconds_of_sum(const trainer::TrainJob& job) {
  if (job.group->size() == 1) return 0;
  job.group->sum(job.adapters.gradients());  // connects them, and makes the buffers
  const Stopwatch watch;
  job.group->sum(job.adapters.gradients());
  synchronize(job.model.device());
  return watch.seconds();
}

}  // namespace

Forecast::Forecast(const Recipe& recipe, const trainer::TrainState& state, c10::Device device,
                   distributed::Group& group) {
  constexpr double kSeconds = 0.4;  // of the mean; a sample and a step before it come on top
  const model::ModelHeader header = model::read_model_header(recipe.model.path);
  const quant::QuantizationOptions quantization = quantization_of(recipe, header);
  const trainer::PlannedRun run = run_of(recipe, header, state, device, group);
  warn_of_costly_settings(run, recipe, quantization, state, device, group);
  const int64_t needed = trainer::plan_memory(trainer::calibration_run(run)).peak();
  if (needed > trainer::plan_memory(run).peak()) {
    no_plan_ = "measuring two layers takes more memory than the run";
  } else if (needed > free_memory_of_rank(device, group.place().local_size)) {
    no_plan_ = "there is no memory to measure two layers in";
  } else {
    planned_tokens_a_step_ = run.micro_batches_a_rank * run.tokens();
    plan_ =
        trainer::plan_time({run, run.micro_batches_a_rank, quantization,
                            packed_maker(recipe, header), device, kSeconds, weights_file(header)});
    release_free_arena_pages();
  }
}

void Forecast::tell(const trainer::TrainJob& job, const data::PreparedData& data) const {
  auto length = rest_of(job, data, planned_tokens_a_step_);
  length.sum_seconds = seconds_of_sum(job);
  if (!plan_) {
    log::info("no estimate of the time: {}", no_plan_);
    return;
  }
  if (length.steps > 0) {
    log::info("estimate: {}", trainer::run_time(*plan_, length).to_text());
    if (const std::string busy = taken_sentence(plan_->taken_by_others); !busy.empty())
      log::info("estimate: {}", busy);
  }
  if (const std::string fetch = plan_->fetch.to_text(); !fetch.empty())
    log::info("fetching of weights that lie elsewhere: {}, beside the products", fetch);
}

int64_t tokens_of(const data::Examples& examples) {
  int64_t tokens = 0;
  for (const data::ExampleView& example : examples) tokens += example.length();
  return tokens;
}

trainer::RunLength rest_of(const trainer::TrainJob& job, const data::PreparedData& data,
                           int64_t planned_tokens_a_step) {
  const int64_t done = job.state.step, total = job.total_steps;
  const double ranks = job.group->size();
  trainer::RunLength length;
  length.steps = total - done;
  length.planned_tokens_a_step = static_cast<double>(planned_tokens_a_step);
  length.tokens_a_step = static_cast<double>(tokens_of(data.train)) / ranks /
                         static_cast<double>(job.loader.steps_in_epoch(job.state.position.epoch));
  if (data.eval.empty()) return length;
  length.tokens_an_evaluation = static_cast<double>(tokens_of(data.eval)) / ranks;
  length.evaluations = trainer::evaluations_after(done, total, job.eval_every);
  return length;
}

}  // namespace qlora::recipes
