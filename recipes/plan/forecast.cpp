#include "recipes/plan/forecast.h"

#include <algorithm>

#include "base/arena_allocator.h"
#include "base/cgroup.h"
#include "base/device.h"
#include "base/log.h"
#include "model/model_header.h"
#include "recipes/plan/costly_settings.h"
#include "recipes/plan/placement.h"
#include "recipes/plan/plan.h"
#include "trainer/memory_fit.h"
#include "trainer/product_rate.h"

namespace qlora::recipes {
namespace {

// With the choices that the run made, or will make.
trainer::PlannedRun run_of(const Recipe& recipe, const model::ModelHeader& header,
                           const trainer::TrainState& state, c10::Device device) {
  trainer::PlannedRun run = planned_run(recipe, header, device.is_cuda());
  run.narrow_gates = state.choices.narrow_gates;
  const bool goes_on = state.horizon > 0;
  run.recompute_layers = goes_on
                             ? state.choices.recompute_layers
                             : trainer::choose_recomputation(
                                   recipe.train.gradient_checkpointing, run,
                                   free_within_limit(recipe, run,
                                                     free_memory_bytes(device) -
                                                         trainer::plan_memory(run).loaded_bytes()));
  return run;
}

void warn_of_costly_settings(const trainer::PlannedRun& run, const Recipe& recipe,
                             const quant::QuantizationOptions& quantization, int threads,
                             c10::Device device) {
  MachineFacts facts;
  facts.compute_dtype = recipe.train.compute_dtype;
  facts.operations_a_second = trainer::product_rate(quantization, run.compute, device);
  facts.float32_operations_a_second = trainer::product_rate(quantization, at::kFloat, device);
  facts.planned_bytes = trainer::plan_memory(run).peak();
  facts.free_bytes = free_memory_bytes(device);
  facts.threads = threads;
  facts.cores = usable_cores();
  facts.on_gpu = device.is_cuda();
  for (const std::string& sentence : costly_settings(facts)) log::write_warning(sentence);
}

}  // namespace

Forecast::Forecast(const Recipe& recipe, const trainer::TrainState& state, c10::Device device) {
  constexpr double kSeconds = 0.4;  // of the mean; a sample and a step before it come on top
  const model::ModelHeader header = model::read_model_header(recipe.model.path);
  const quant::QuantizationOptions quantization = quantization_of(recipe, header);
  const trainer::PlannedRun run = run_of(recipe, header, state, device);
  warn_of_costly_settings(run, recipe, quantization, state.choices.threads, device);
  const int64_t needed = trainer::plan_memory(trainer::calibration_run(run)).peak();
  if (needed > trainer::plan_memory(run).peak()) {
    no_plan_ = "measuring two layers takes more memory than the run";
  } else if (needed > free_memory_bytes(device)) {
    no_plan_ = "there is no memory to measure two layers in";
  } else {
    planned_tokens_a_step_ = recipe.train.gradient_accumulation_steps * run.tokens();
    plan_ =
        trainer::plan_time({run, recipe.train.gradient_accumulation_steps, quantization,
                            packed_maker(recipe, header), device, kSeconds, weights_file(header)});
    release_free_arena_pages();
  }
}

void Forecast::tell(const trainer::TrainJob& job, const data::PreparedData& data) const {
  if (!plan_) {
    log::info("no estimate of the time: {}", no_plan_);
    return;
  }
  const auto length = rest_of(job, data, planned_tokens_a_step_);
  if (length.steps > 0) log::info("estimate: {}", trainer::run_time(*plan_, length).to_text());
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
  trainer::RunLength length;
  length.steps = total - done;
  length.planned_tokens_a_step = static_cast<double>(planned_tokens_a_step);
  length.tokens_a_step = static_cast<double>(tokens_of(data.train)) /
                         static_cast<double>(job.loader.steps_in_epoch(job.state.position.epoch));
  if (data.eval.empty()) return length;
  length.tokens_an_evaluation = tokens_of(data.eval);
  length.evaluations = trainer::evaluations_after(done, total, job.eval_every);
  return length;
}

}  // namespace qlora::recipes
