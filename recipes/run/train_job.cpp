#include "recipes/run/train_job.h"

#include <filesystem>
#include <functional>
#include <memory>
#include <utility>

#include "base/log.h"
#include "recipes/plan/forecast.h"
#include "recipes/plan/plan.h"
#include "recipes/run/ranks.h"
#include "recipes/run/starting_state.h"
#include "recipes/run/training_data.h"
#include "recipes/run_files/last_save.h"
#include "trainer/evaluate.h"
#include "trainer/memory_report.h"
#include "trainer/preference_evaluation.h"
#include "trainer/step_profile.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

trainer::MemoryPlan memory_plan(const Recipe& recipe, const trainer::TrainJob& job) {
  trainer::PlannedRun planned =
      planned_run(recipe, job.model, longest_sequence(recipe, job.loader), job.group->size());
  planned.recompute_layers = job.state.choices.recompute_layers;
  return trainer::plan_memory(planned);
}

std::function<void(const trainer::StepMetrics&)> step_reporter(
    const Recipe& recipe, const std::string& run_dir, const trainer::TrainJob& job,
    std::shared_ptr<trainer::StepProfile> profile, trainer::RunReport& report) {
  const c10::Device device = job.model.device();
  return [&report, profile = std::move(profile),
          memory = trainer::MemoryReport(memory_plan(recipe, job), device,
                                         (fs::path(run_dir) / trainer::kMemoryFile).string())](
             const trainer::StepMetrics& metrics) mutable {
    profile->after_step();
    // Else the evaluation behind the last step would count as one of it.
    if (metrics.step == metrics.total_steps) profile->at_the_end();
    report.step(metrics);
    memory.after_step(metrics.step == metrics.total_steps);
  };
}

std::function<void()> saver(const Recipe& recipe, RunDirectory& run,
                            const trainer::CheckpointParts& parts,
                            std::shared_ptr<distributed::Group> group, trainer::RunReport* report) {
  return [limit = recipe.train.save_total_limit, &recipe, &run, parts, group = std::move(group),
          report, best_is_told = false]() mutable {
    require_same_state(*group, parts.adapters, parts.optimizer);
    if (report == nullptr) return;
    const std::string& run_dir = run.path();
    run.stay(as_recorded(recipe, parts.state));
    report->sync();
    trainer::save_checkpoint(run_dir, parts);
    note_last_save(run_dir, parts.state.step);
    // Before the rotation, which may remove what was the best one.
    if (parts.state.best_step == parts.state.step &&
        !trainer::point_best_at(run_dir, parts.state.best_step) &&
        !std::exchange(best_is_told, true))
      log::warning(
          "the file system of {} has no links, so that there is no {}/best; --checkpoint takes the "
          "checkpoint of the lowest evaluation loss by its name",
          run_dir, run_dir);
    trainer::rotate_checkpoints(run_dir, limit, parts.state.best_step);
  };
}

// Behind a step within the warm-up the loss says nothing about the rate, which has yet to rise.
void follow_plateau(const optim::OptimizerOptions& options, bool warms_up, double loss,
                    optim::Plateau& plateau) {
  if (options.schedule != "reduce_on_plateau" || warms_up) return;
  const double before = plateau.factor;
  plateau.evaluated(loss, options);
  if (plateau.factor < before)
    log::info("the evaluation loss stays; the learning rate is now {:.3g}",
              options.lr * plateau.factor);
}

trainer::Evaluation evaluation_of(const Recipe& recipe, const data::Examples& examples,
                                  const Reference& reference, model::CausalLm& model,
                                  distributed::Group* group) {
  if (recipe.train.objective == "sft")
    return trainer::evaluate_loss(model, examples, /*adapters_enabled=*/true,
                                  trainer::kTokensPerPass, group);
  return trainer::evaluate_preferences(model, examples, preference_options(recipe), reference.eval,
                                       group);
}

// Saves what is the best so far, as the job does.
std::function<void()> evaluator(const Recipe& recipe, const data::PreparedData& data,
                                const Reference& reference, const trainer::TrainJob& job,
                                trainer::RunReport* report) {
  return [&recipe, &data, &reference, report, warmup = job.schedule.warmup_steps(),
          &model = job.model, &state = job.state, save = job.save, group = job.group] {
    if (data.eval.empty()) return;
    const trainer::Evaluation evaluation =
        evaluation_of(recipe, data.eval, reference, model, group.get());
    const bool is_best = evaluation.loss < state.best_eval_loss;
    const bool gained =
        evaluation.loss < state.best_eval_loss - recipe.train.early_stopping_min_delta;
    state.stale_evaluations = gained ? 0 : state.stale_evaluations + 1;
    follow_plateau(recipe.optim, state.step < warmup, evaluation.loss, state.plateau);
    if (report != nullptr) report->evaluation(state.step, evaluation, is_best);
    if (!is_best) return;
    state.best_eval_loss = evaluation.loss;
    state.best_step = state.step;
    save();
  };
}

}  // namespace

trainer::ReportOptions report_options(const Recipe& recipe, const data::PreparedData& data) {
  return {recipe.train.log_every, recipe.train.eval_every, tokens_of(data.eval)};
}

void set_up_job(const Recipe& recipe, const data::PreparedData& data, const Reference& reference,
                RunDirectory& run, const trainer::CheckpointParts& parts,
                trainer::RunReport* report, trainer::TrainJob& job) {
  job.objective = objective_of(recipe, reference);
  job.total_steps = total_steps(recipe, job.loader, job.state.horizon);
  job.max_grad_norm = recipe.optim.max_grad_norm;
  job.audit = recipe.train.audit;
  job.scales_loss = recipe.train.compute_dtype == "float16";
  job.seed = recipe.train.seed;
  job.rounding = {recipe.lora.dtype == "bfloat16", recipe.optim.stochastic_rounding,
                  recipe.train.seed};
  job.eval_every = recipe.train.eval_every;
  job.save_every = recipe.train.save_every;
  job.patience = recipe.train.early_stopping_patience;
  if (job.group->size() > 1)
    job.micro_batches_a_rank = micro_batches_a_rank(recipe, job.group->size());
  if (report != nullptr) {
    const auto profile = std::make_shared<trainer::StepProfile>(
        run.file(trainer::kProfileFile), recipe.train.profile_steps, job.model.device());
    job.report = step_reporter(recipe, run.path(), job, profile, *report);
    job.at_the_end = [profile] { profile->at_the_end(); };
  }
  job.save = saver(recipe, run, parts, job.group, report);
  job.evaluate = evaluator(recipe, data, reference, job, report);
}

}  // namespace qlora::recipes
