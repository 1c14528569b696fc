// The training loop: windows of micro-batches in, optimizer steps out, with evaluation, checkpoints
// and an audit of whether it trains at all (run_audit.h). It knows neither the recipe nor where the
// model came from.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/stop.h"
#include "data/loader.h"
#include "distributed/group.h"
#include "lora/attach.h"
#include "model/causal_lm.h"
#include "optim/lr_schedule.h"
#include "optim/optimizer.h"
#include "optim/round.h"
#include "trainer/gradient_sum.h"
#include "trainer/metrics.h"
#include "trainer/objective.h"
#include "trainer/train_state.h"

namespace qlora::trainer {

// What the loop works on; everything outlives it.
struct TrainJob {
  model::CausalLm& model;
  lora::AdapterSet& adapters;
  optim::Optimizer& optimizer;
  std::vector<optim::Parameter> parameters;  // the optimizer's, for messages
  optim::LrSchedule schedule;
  data::Loader& loader;
  TrainState& state;
  int64_t total_steps = 0;
  double max_grad_norm = 1.0;
  bool audit = true;         // run_audit.h
  bool scales_loss = false;  // float16: state.loss_scale adapts
  uint64_t seed = 0;
  int64_t eval_every = 0, save_every = 0;
  int64_t patience = 0;  // evaluations without a gain before the run ends; 0: never
  optim::MasterRounding rounding = {};
  // Called between steps. `evaluate`, `sample` and `save` leave no trace in the run; an evaluation
  // or a sample that leaves by Stopped has changed nothing in the state.
  std::function<void(const StepMetrics&)> report = [](const StepMetrics&) {};
  std::function<void()> evaluate = {};
  // Once, behind the last step of this start, also where the run was stopped.
  std::function<void()> at_the_end = [] {};
  // Before the first step and after each; `at_end`: of the last one. Knows by itself whether
  // sample answers are due.
  std::function<void(bool at_end)> sample = [](bool) {};
  std::function<void()> save = {};
  std::optional<Stopped> stopped = {};  // where the run was left, once it is interrupted
  std::unique_ptr<Objective> objective = cross_entropy_objective();
  // The ranks that train together. Each calls run() with an equal job, but reports and saves only
  // on rank 0, and gets every window whole, of whose micro-batches it computes its block.
  std::shared_ptr<distributed::Group> group = std::make_shared<distributed::Group>();
  int64_t micro_batches_a_rank = 0;  // 0: all, with one rank
  GradientSum gradient_sum = {};
};

enum class Outcome { kFinished, kInterrupted };

// Runs from state.step to total_steps, until `patience` evaluations in a row gained nothing, or
// until a stop is wanted (base/stop.h): the step or the evaluation that is under way is abandoned,
// the state of its begin saved, and the resumed run takes it from there, to the same bits. Throws
// DivergenceError at a non-finite loss or gradient (with loss scaling: once no smaller scale is
// left), before the optimizer has seen it: the last checkpoint stays good. Errors of RunAudit.
// Where `report` throws IoError the step is saved, if that can be, before it goes on to the caller.
Outcome run(TrainJob& job);

}  // namespace qlora::trainer
