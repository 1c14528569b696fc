#include "recipes/qlora_finetune.h"

#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/path_error.h"
#include "base/stop.h"
#include "data/prepare.h"
#include "io/live_mappings.h"
#include "lora/adapter_file.h"
#include "recipes/before_loading.h"
#include "recipes/given_adapter.h"
#include "recipes/models/adapter_text.h"
#include "recipes/models/base_model.h"
#include "recipes/plan/forecast.h"
#include "recipes/run/attached_adapters.h"
#include "recipes/run/broken_off.h"
#include "recipes/run/finished_run.h"
#include "recipes/run/machine.h"
#include "recipes/run/preferences.h"
#include "recipes/run/ranks.h"
#include "recipes/run/samples.h"
#include "recipes/run/starting_state.h"
#include "recipes/run/train_job.h"
#include "recipes/run/training_data.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/yaml/recipe_yaml.h"
#include "trainer/checkpoint.h"
#include "trainer/optimizer_parameters.h"
#include "trainer/run_report.h"

namespace qlora::recipes {
namespace {

// A run that has a checkpoint goes on without the adapter that it began from, if that is gone.
Recipe without_lost_adapter(Recipe recipe, const RunDirectory& run) {
  if (!run.checkpoint() || recipe.lora.from_adapter.empty() || has_given_adapter(recipe))
    return recipe;
  log::warning("lora.from_adapter: there is no adapter in {}; the run's checkpoint holds its form",
               recipe.lora.from_adapter);
  recipe.lora.from_adapter.clear();
  return recipe;
}

// The loop, and what the run leaves at its end. Where it breaks off, the first rank, whose files
// they are, says what is saved and what helps.
trainer::Outcome train_to_the_end(const Recipe& recipe, const RunDirectory& run,
                                  const BaseModel& base, trainer::TrainJob& job) {
  if (!job.group->leads()) return trainer::run(job);
  try {
    const trainer::Outcome outcome = trainer::run(job);
    finish(recipe, run, base, job);
    return outcome;
  } catch (const DivergenceError& error) {
    fail<DivergenceError>("{}\n{}", error.what(), way_out_of_divergence(run.path()));
  } catch (const IoError& error) {
    fail<IoError>("{}\n{}", error.what(), way_on_after_refusal(run.path()));
  } catch (const std::filesystem::filesystem_error& error) {
    fail<IoError>("{}\n{}", sentence_of(error), way_on_after_refusal(run.path()));
  }
}

trainer::Outcome train_as_rank(Recipe recipe, const std::shared_ptr<distributed::Group>& group) {
  complete_recipe(recipe);
  require_same_recipe(*group, recipe);
  recipe.train.device = device_of_rank(recipe.train.device, group->place());
  RunDirectory run(recipe, *group);
  tell_left_out(recipe);
  if (run.finished()) {
    if (group->leads()) tell_finished(recipe, run);
    return trainer::Outcome::kFinished;
  }
  // Reads the base from where the run wrote one of its own (init: loftq, ...).
  const Recipe on_base = run.checkpoint() ? with_saved_base(recipe) : recipe;
  const std::optional<trainer::TrainState> begun = read_begun_state(recipe, run, *group);
  ModelText text = check_before_loading(on_base, begun, run.checkpoint().value_or(""));
  trainer::TrainState state = starting_state(recipe, begun, *group);
  // With the dtypes that `auto` came to when the run began.
  const Recipe as_begun = with_choices(on_base, state);
  const c10::Device device = set_up_machine(recipe, state);

  const data::PreparedData data = read_data(recipe, text, state, *group);
  data::Loader loader = make_loader(recipe, data);
  extend(recipe, data, loader, state);
  const Forecast forecast(as_begun, state, device, *group);
  BaseModel base =
      load_base(as_begun, device, run.checkpoint() ? BaseUse::kOfRun : BaseUse::kForAdapter,
                std::move(text), group);
  // The initialisation that made the base is not repeated, and an adapter to begin from may be
  // gone. Of several ranks the first alone writes records, and may alone have the run.
  if (run.checkpoint() && group->leads()) adopt_base_origin(*run.checkpoint() + "/adapter", base);
  // What lies in the model's files is read in each step: whether it is still what is recorded.
  std::optional<io::MappedBytesCheck> base_check;
  if (base.model->hash_when_read.empty())  // ranks that keep parts of it cannot hash it again
    base_check.emplace([&base] { return base.model->base_hash() == base.record.hash; });
  base.model->narrow_gates = state.choices.narrow_gates;
  require_same_start(*group, base.record.hash, data);
  complete_state(recipe, base, data, loader, *group, state);

  lora::AdapterSet adapters = attach_adapters(without_lost_adapter(recipe, run), base);
  look_for_trained_tokens(adapters, data);
  const std::vector<optim::Parameter> parameters =
      trainer::optimizer_parameters(adapters, recipe.lora, recipe.optim);
  const auto optimizer = optim::make_optimizer(recipe.optim, parameters);
  const Reference reference = reference_of(recipe, run, base, data, *group);
  const trainer::CheckpointParts parts{
      adapters, recipe.lora, base.record, *optimizer, state, [&base](const std::string& directory) {
        write_texts_of_checkpoint(directory, *base.tokenizer, base.has_adapters_tokenizer,
                                  base.chat_template.get());
      }};
  if (run.checkpoint()) go_on_from(*run.checkpoint(), parts, *group);
  require_same_state(*group, adapters, *optimizer);
  std::vector<trainer::SamplePrompt> prompts;  // of the first rank
  if (group->leads()) prompts = make_sample_prompts(recipe, base);
  run.begin(as_recorded(recipe, state), state.step, state.data_fingerprint);
  std::optional<trainer::RunReport> report;  // of the first rank
  if (group->leads()) {
    if (run.checkpoint()) static_cast<void>(trainer::point_best_at(run.path(), state.best_step));
    save_base(recipe, base);
    save_reference(run, data, reference);
    report.emplace(run.path(), state.step, report_options(recipe, data));
  }
  trainer::TrainJob job{
      *base.model, adapters, *optimizer, parameters, optim::LrSchedule(recipe.optim, state.horizon),
      loader,      state};
  job.group = group;
  set_up_job(recipe, data, reference, run, parts, report ? &*report : nullptr, job);
  if (report) set_up_samples(recipe, base, prompts, *report, job);
  forecast.tell(job, data);
  const trainer::Outcome outcome = train_to_the_end(recipe, run, base, job);
  group->meet();  // the first rank, whose store the others ask, leaves with the last
  return outcome;
}

}  // namespace

trainer::Outcome finetune(Recipe recipe, const std::atomic<bool>& stop) {
  const ObeyStop obey(stop);
  std::shared_ptr<distributed::Group> group;  // once the ranks have met
  try {
    group = meet_ranks(recipe);
    return train_as_rank(std::move(recipe), group);
  } catch (const distributed::LostRank&) {
    throw;
  } catch (const Stopped& stopped) {
    if (group && group->size() == 1) throw;
    if (group) group->stop_together(stopped.to_text());
    throw Stopped{"before the first step, " + stopped.to_text(), 0, 0, ""};
  } catch (const std::exception& error) {
    if (group) group->fail_together(error.what());
    throw;
  }
}

}  // namespace qlora::recipes
