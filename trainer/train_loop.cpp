#include "trainer/train_loop.h"

#include <ATen/ATen.h>

#include <filesystem>

#include "base/device.h"
#include "base/error.h"
#include "base/log.h"
#include "base/stopwatch.h"
#include "optim/grad_clip.h"
#include "trainer/run_audit.h"
#include "trainer/train_step.h"

namespace qlora::trainer {
namespace {

// A float16 gradient overflowed: the next step gets a smaller scale.
void leave_out_step(TrainJob& job) {
  const std::string tensor = optim::first_nonfinite_gradient(job.parameters);
  if (!job.scales_loss || !job.state.loss_scale.overflowed())
    fail<DivergenceError>("step {}: the gradient of {} is not finite; lower optim.lr",
                          job.state.step + 1, tensor);
  log::info("step {} is left out: the gradient of {} overflowed float16; the loss scale is now {}",
            job.state.step + 1, tensor, job.state.loss_scale.value);
}

// Whether the last evaluations gained too little to go on (early stopping).
bool has_settled(const TrainJob& job) {
  return job.patience > 0 && job.state.stale_evaluations >= job.patience;
}

bool is_done(const TrainJob& job) { return job.state.step >= job.total_steps || has_settled(job); }

// Passes over the rows so far; whole ones where rows were left unread, whose number is not known.
double epochs_of(const TrainJob& job) {
  const data::LoaderPosition position = job.state.position;
  const auto whole = static_cast<double>(position.epoch);
  if (job.state.first_examples > 0) return whole;
  return whole + static_cast<double>(position.step_in_epoch) /
                     static_cast<double>(job.loader.steps_in_epoch(position.epoch));
}

// Whether the evaluation behind the step that was just taken belongs to the run.
bool evaluates_here(const TrainJob& job) {
  return job.state.step == job.total_steps ||
         (job.eval_every > 0 && job.state.step % job.eval_every == 0);
}

// A disk that takes no line of a step may take a checkpoint, or may have taken one: the step is
// done, and the run goes on behind it. Of several ranks the others are elsewhere, and all must save
// together.
void save_unreported(TrainJob& job) {
  if (job.group->size() > 1) return;
  try {
    job.state.evaluation_due = evaluates_here(job);
    job.save();
  } catch (const Error&) {
    // The first error says as much.
  } catch (const std::filesystem::filesystem_error&) {
  }
}

void report(TrainJob& job, const StepMetrics& metrics) {
  try {
    job.report(metrics);
  } catch (const IoError&) {
    save_unreported(job);
    throw;
  }
}

// Window, gradients, update, report.
void take_step(TrainJob& job, RunAudit& audit) {
  TrainState& state = job.state;
  Stopwatch watch;
  const data::StepWindow window = job.loader.next();
  const WindowLoss loss = accumulate_gradients(job, window);
  const double loss_scale = state.loss_scale.value;
  auto norm = optim::gradient_norm(job.adapters.gradients(), job.max_grad_norm * loss_scale);
  norm.norm /= loss_scale;
  const double lr = job.schedule.at(state.step) * state.plateau.factor;
  if (norm.finite()) {
    audit.look(loss.value, lr);
    job.optimizer.step(lr, norm.scale / loss_scale);
    optim::round_masters(job.rounding, job.parameters, state.step);
    job.adapters.publish();
    audit.count_update(lr);
    if (job.scales_loss) state.loss_scale.good();
  } else {
    leave_out_step(job);
  }

  state.step += 1;
  state.position = job.loader.position();
  state.tokens += window.num_tokens;
  state.supervised_tokens += window.num_supervised;
  report(job,
         {state.step, job.total_steps, epochs_of(job), loss.value, lr, norm.norm, window.num_tokens,
          window.num_supervised, watch.seconds(), peak_resident_bytes(), loss.preference});
}

// An evaluation that is left is due again when the run goes on.
void evaluate(TrainJob& job) {
  try {
    job.state.evaluation_due = false;
    job.evaluate();
  } catch (const Stopped&) {
    job.state.evaluation_due = true;
    throw;
  }
}

// Work of the first rank alone: where it is left, all ranks are.
void sample(TrainJob& job) {
  if (job.group->size() == 1) return job.sample(is_done(job));
  std::optional<Stopped> stopped;
  try {
    job.sample(is_done(job));
  } catch (const Stopped& here) {
    stopped = here;
  }
  if (job.group->any(stopped.has_value())) throw stopped.value_or(Stopped());
}

}  // namespace

Outcome run(TrainJob& job) {
  TrainState& state = job.state;
  RunAudit audit(job);
  job.loader.seek(state.position);
  try {
    if (state.evaluation_due) {
      evaluate(job);
      job.save();
    }
    sample(job);
    while (!is_done(job)) {
      // Of several ranks all must leave at the same place: within the step they tell each other.
      if (job.group->size() == 1) leave_if_stop_wanted();
      take_step(job, audit);
      if (evaluates_here(job)) evaluate(job);
      sample(job);
      if (is_done(job) || (job.save_every > 0 && state.step % job.save_every == 0)) job.save();
    }
  } catch (const Stopped& stopped) {
    job.stopped = stopped;
    job.save();
    job.at_the_end();
    return Outcome::kInterrupted;
  }
  job.at_the_end();
  audit.at_the_end();
  if (has_settled(job) && state.step < job.total_steps)
    log::info("stopped early: {} evaluations in a row without a gain, the best was at step {}",
              state.stale_evaluations, state.best_step);
  return Outcome::kFinished;
}

}  // namespace qlora::trainer
