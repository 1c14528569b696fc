#include "recipes/run/finished_run.h"

#include <fmt/format.h>

#include "base/log.h"
#include "export/adapter.h"
#include "recipes/exports/training_facts.h"
#include "recipes/run/stop_sentence.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {

// "10 steps, 492 tokens", or where the adapter is if the checkpoints were deleted.
std::string what_is_there(const RunDirectory& run) {
  const auto newest = trainer::newest_checkpoint(run.path(), trainer::Look::kSizes);
  if (!newest.whole) return fmt::format("its adapter is in {}", run.file("adapter"));
  const trainer::TrainState state = trainer::read_train_state(*newest.whole);
  return fmt::format("{} steps, {} tokens", state.step, state.tokens);
}

}  // namespace

void finish(const Recipe& recipe, const RunDirectory& run, const BaseModel& base,
            const trainer::TrainJob& job) {
  if (job.stopped) {
    log::write_info(stop_sentence(*job.stopped, job.state, run.path()));
    return;
  }
  const std::string directory = run.file("adapter");
  exporting::write_adapter_directory(directory, job.adapters, recipe.lora, base.record,
                                     *base.tokenizer, base.chat_template.get(),
                                     training_facts(recipe));
  log::info("finished: {} steps, {} tokens; the adapter is in {}", job.state.step, job.state.tokens,
            directory);
  if (base.model->architecture().has_encoder())
    log::info("try it: qlora generate {} --prompt TEXT", run.path());
  else
    log::info("try it: qlora chat {}", run.path());
  log::info("export: qlora export {} --format merged --output DIR", run.path());
}

void tell_finished(const RunDirectory& run) {
  log::info("{} was finished before: {}; nothing is left to train and nothing was changed",
            run.path(), what_is_there(run));
  log::write_info(
      "longer: --set train.max_steps=N (or train.epochs) --set train.on_extend=continue; anew: "
      "--overwrite, or another output.dir");
}

}  // namespace qlora::recipes
