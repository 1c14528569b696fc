// The small run that a plan of the time measures: a few layers of one kind, on made weights, with
// the adapters that the whole run gives to such layers, on rows of made-up tokens.
#pragma once

#include <cstdint>
#include <memory>

#include "base/progress.h"
#include "data/loader.h"
#include "lora/attach.h"
#include "model/causal_lm.h"
#include "optim/optimizer.h"
#include "trainer/time_plan.h"
#include "trainer/train_loop.h"

namespace qlora::trainer {

// How much of a micro-batch is measured.
struct Sample {
  int64_t rows, length;
  int64_t tokens() const { return rows * length; }
};

// Its steps are taken one by one; each counts in `progress`, and is left there by a stop.
class SampleRun {
 public:
  SampleRun(const Calibration& calibration, const Sample& sample, uint8_t kind, int64_t num_layers,
            Progress& progress);
  ~SampleRun();

  // In the steps from now on.
  void recompute(bool all) { state_.choices.recompute_layers = all; }
  void step();
  // How long a mean may be taken over.
  double seconds() const { return seconds_; }

 private:
  std::unique_ptr<model::CausalLm> model_;
  std::unique_ptr<lora::AdapterSet> adapters_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  data::Loader loader_;
  TrainState state_;
  std::unique_ptr<TrainJob> job_;
  Progress& progress_;
  double seconds_;
};

// The run's options for a model of the first layers alone, `sample`: of each, what they choose of
// the first layers that they adapt.
lora::LoraOptions lora_of_sample(const PlannedRun& run, const model::Architecture& sample);

}  // namespace qlora::trainer
