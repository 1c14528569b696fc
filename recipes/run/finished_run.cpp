#include "recipes/run/finished_run.h"

#include <fmt/format.h>

#include <filesystem>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "data/trained_prompts.h"
#include "export/adapter.h"
#include "export/card_text.h"
#include "io/read_file.h"
#include "optim/lr_schedule.h"
#include "recipes/exports/training_facts.h"
#include "recipes/report/metrics_columns.h"
#include "recipes/run/judged_evaluations.h"
#include "recipes/run/stop_sentence.h"
#include "recipes/run_files/set_aside.h"
#include "recipes/run_files/train_command.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

std::string metrics_of(const RunDirectory& run) {
  const std::string metrics = run.file("metrics.jsonl");
  return fs::exists(metrics) ? io::read_bytes(metrics) : "";
}

// "10 steps, 492 tokens", by metrics.jsonl: checkpoints may be gone. Or else where the adapter is.
std::string what_is_there(const RunDirectory& run) {
  const auto columns = metrics_columns(metrics_of(run));
  const std::vector<double> steps = numbers_of(columns.steps, "step"),
                            tokens = numbers_of(columns.steps, "tokens");
  if (steps.empty()) return fmt::format("its adapter is in {}", run.file("adapter"));
  return fmt::format("{:.0f} steps, {:.0f} tokens", steps.back(),
                     std::accumulate(tokens.begin(), tokens.end(), 0.0));
}

// How to export the adapter of the lowest evaluation loss, where the last step's is another.
void tell_best(const RunDirectory& run, const trainer::TrainState& state) {
  if (state.best_step < 0 || state.best_step == state.step || !fs::exists(run.file("best/adapter")))
    return;
  log::info(
      "export of step {}, which had the lowest evaluation loss ({:.4f}): qlora export {} "
      "--checkpoint best --format merged --output DIR",
      state.best_step, state.best_eval_loss, exporting::shell_word(run.path()));
}

// Puts prompts as the rows of the training do.
std::string command_to_try(const Recipe& recipe, const RunDirectory& run, bool has_encoder) {
  const std::string directory = exporting::shell_word(run.path());
  const data::TrainedPrompts prompts = data::trained_prompts(recipe.data);
  if (has_encoder) return fmt::format("qlora generate {} --prompt TEXT", directory);
  if (prompts.are_raw) return fmt::format("qlora generate {} --raw --prompt TEXT", directory);
  if (prompts.system.empty()) return fmt::format("qlora chat {}", directory);
  if (prompts.system.find('\n') != std::string::npos)
    return fmt::format("qlora chat {} --system TEXT, which is the system of data.train", directory);
  return fmt::format("qlora chat {} --system {}", directory, exporting::shell_word(prompts.system));
}

// Of a run that has no whole checkpoint to go on from.
void tell_finished_for_good(const RunDirectory& run) {
  log::info("{} was finished before: {}; nothing is left to train and nothing was changed",
            run.path(), what_is_there(run));
  log::info(
      "it cannot be made longer, as no whole checkpoint is left; another run can begin with its "
      "adapter, by lora.from_adapter: {}",
      run.file("adapter"));
  log::info("anew: {} --overwrite", train_command(run.path()));
}

// What train.on_extend may be: past the end of most courses the rate is 0, whatever their length.
const char* wish_of_longer_run(const Recipe& recipe) {
  return optim::LrSchedule(recipe.optim, 1).ends_at_zero() ? "rescale" : "continue";
}

// What makes the run longer. One that early stopping ended, or would end now, trains no step more
// unless that waits for longer. `checkpoint`: its last.
std::string changes_of_longer_run(const Recipe& recipe, const RunDirectory& run,
                                  const std::optional<std::string>& checkpoint) {
  const std::string steps =
      fmt::format(" --set train.max_steps=N --set train.on_extend={}", wish_of_longer_run(recipe));
  const int64_t patience = recipe.train.early_stopping_patience;
  if (patience == 0 || !checkpoint) return steps;
  const trainer::TrainState state = trainer::read_train_state(*checkpoint);
  const int64_t stale =
      stale_evaluations(metrics_of(run), recipe.train.early_stopping_min_delta, state);
  if (stale < patience) return steps;
  const int64_t length = recipe.train.max_steps > 0 ? recipe.train.max_steps : state.horizon;
  return (state.step < length ? "" : steps) + " --set train.early_stopping_patience=0";
}

}  // namespace

void finish(const Recipe& recipe, const RunDirectory& run, const BaseModel& base,
            const trainer::TrainJob& job) {
  if (job.stopped) {
    log::write_info(stop_sentence(*job.stopped, job.state, run.path()));
    return;
  }
  const std::string directory = run.file("adapter");
  // RunDirectory::begin() leaves none there.
  if (fs::exists(directory))
    log::warning("{} was put there while the run went on; it is now {}", directory,
                 set_aside(run.path(), "adapter"));
  exporting::write_adapter_directory(directory, job.adapters, recipe.lora, base.record,
                                     *base.tokenizer, base.chat_template.get(),
                                     training_facts(recipe, base.record.compute_dtype));
  log::info("finished: {} steps, {} tokens; the adapter is in {}", job.state.step, job.state.tokens,
            directory);
  log::info("try it: {}", command_to_try(recipe, run, base.model->architecture().has_encoder()));
  log::info("export: qlora export {} --format merged --output DIR",
            exporting::shell_word(run.path()));
  tell_best(run, job.state);
}

void tell_finished(const Recipe& recipe, const RunDirectory& run) {
  const auto newest = trainer::newest_checkpoint(run.path(), trainer::Look::kHashes);
  for (const trainer::PassedOver& checkpoint : newest.passed_over)
    log::warning("damaged: {}", checkpoint.fault);
  if (!newest.whole) return tell_finished_for_good(run);
  log::info("{} was finished before: {}; nothing is left to train and nothing was changed",
            run.path(), what_is_there(run));
  // Whole commands, to be copied: resume, which may have been called, takes neither --set nor
  // --overwrite.
  const std::string train = train_command(run.path());
  log::info("longer: {}{}", train, changes_of_longer_run(recipe, run, newest.whole));
  log::info("anew: {} --overwrite", train);
}

}  // namespace qlora::recipes
