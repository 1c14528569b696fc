#include "recipes/run/starting_state.h"

#include <algorithm>
#include <filesystem>

#include "base/cgroup.h"
#include "base/device.h"
#include "base/error.h"
#include "base/instruction_set.h"
#include "base/log.h"
#include "io/read_file.h"
#include "lora/adapter_file.h"
#include "model/model_header.h"
#include "model/placement.h"
#include "optim/lr_schedule.h"
#include "recipes/models/compute_dtype.h"
#include "recipes/models/model_dtype.h"
#include "recipes/plan/free_memory.h"
#include "recipes/plan/placement.h"
#include "recipes/plan/plan.h"
#include "recipes/run/judged_evaluations.h"
#include "recipes/run/long_rows.h"
#include "recipes/run/ranks.h"
#include "recipes/run/training_data.h"
#include "recipes/run_files/run_names.h"
#include "recipes/run_files/train_command.h"
#include "trainer/memory_fit.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

// model.dtype auto: as an adapter to go on from says its base was held, or else by the file.
std::string model_dtype_to_begin_with(const Recipe& recipe) {
  if (recipe.model.dtype != "auto") return recipe.model.dtype;
  if (!recipe.lora.from_adapter.empty())
    if (const auto record = lora::read_adapter_base(recipe.lora.from_adapter)) return record->dtype;
  return resolved_model_dtype(recipe, model::read_model_header(recipe.model.path));
}

c10::Device device_of(const Recipe& recipe) {
  try {
    return device_from_string(recipe.train.device);
  } catch (const ConfigError& error) {
    fail<ConfigError>("train.device: {}", error.what());
  }
}

// Those of a run that begins now.
trainer::ResolvedChoices new_choices(const Recipe& recipe, c10::Device device,
                                     distributed::Group& group) {
  trainer::ResolvedChoices choices;
  const int cores = cores_of_rank(group);
  choices.threads = recipe.train.threads > 0 ? recipe.train.threads : cores;
  choices.instruction_set = to_string(instruction_set());
  choices.device = device.str();
  choices.compute_dtype = resolved_compute_dtype(recipe.train.compute_dtype, device);
  choices.model_dtype = model_dtype_to_begin_with(recipe);
  choices.narrow_gates = keeps_narrow_gates(recipe.train.compute_dtype, device);
  return choices;
}

void compare_with_machine(const trainer::ResolvedChoices& choices, const std::string& device) {
  if (c10::Device(choices.device).type() != c10::Device(device).type()) {
    fail<ConfigError>(
        "train.device: the run began on {} and would go on on {}, where sums are rounded "
        "differently; set train.device to {}, or start another run with lora.from_adapter",
        choices.device, device, choices.device);
  }
  if (choices.instruction_set != to_string(instruction_set())) {
    log::warning(
        "the run began with the instructions {}, now there are {}: the last bits may differ",
        choices.instruction_set, to_string(instruction_set()));
  }
}

// Versions that did not record them had bfloat16 where nothing was said.
void fill_in_dtypes(const Recipe& recipe, trainer::ResolvedChoices& choices) {
  const auto recorded_as = [](const std::string& wish) {
    return wish == "auto" ? "bfloat16" : wish;
  };
  if (choices.compute_dtype.empty())
    choices.compute_dtype = recorded_as(recipe.train.compute_dtype);
  if (choices.model_dtype.empty()) choices.model_dtype = recorded_as(recipe.model.dtype);
}

// Of as many examples as the run read when it began, where it did not read all.
std::string fingerprint_as_begun(const data::PreparedData& data, const trainer::TrainState& state) {
  const auto count = static_cast<size_t>(state.first_examples);
  if (count == 0 || count > data.train.size()) return data.fingerprint();
  return data::examples_fingerprint(data.train, 0, count);
}

void compare_base(const BaseModel& base, const trainer::TrainState& state) {
  if (state.base_hash == base.record.hash) return;
  const char* blocks = base.model->placement.float32.empty()
                           ? ""
                           : " with the same blocks on the cpu and on disk in model.device_map";
  fail<ConfigError>(
      "model.path: {} holds other weights than the run began with (hash {}, then {}); give the "
      "same model{}, or start another run",
      base.path, base.record.hash, state.base_hash, blocks);
}

void compare_rows(const data::PreparedData& data, const trainer::TrainState& state) {
  const std::string found = fingerprint_as_begun(data, state);
  if (found == state.data_fingerprint) return;
  fail<ConfigError>(
      "data.train: the rows are others than the run began with (fingerprint {}, then {}); "
      "restore the files, or start another run",
      found, state.data_fingerprint);
}

void record_rows(const data::PreparedData& data, trainer::TrainState& state) {
  state.data_fingerprint = data.fingerprint();
  state.first_examples = data.ends_early() ? static_cast<int64_t>(data.train.size()) : 0;
}

// Of a run of `steps` steps, those that were made included.
void warn_of_rates(const Recipe& recipe, int64_t steps, int64_t horizon) {
  const std::string sentence =
      optim::rate_sentence(optim::LrSchedule(recipe.optim, horizon), steps);
  if (!sentence.empty()) log::write_warning(sentence);
}

void report_recomputation(const BaseModel& base, const trainer::TrainState& state) {
  const int64_t layers = base.model->architecture().num_layers();
  if (const int64_t count = state.choices.recompute_layers.count(layers); count > 0)
    log::info("{} of {} layers are recomputed in the backward pass", count, layers);
}

// `qlora resume` takes no --set, and the recipe that a run has recorded is not to be edited.
std::string command_of_rescale(const Recipe& recipe) {
  if (fs::path(recipe.file).filename() != kRecipeFile) return "";
  const std::string length = recipe.train.max_steps > 0
                                 ? fmt::format("max_steps={}", recipe.train.max_steps)
                                 : fmt::format("epochs={}", recipe.train.epochs);
  return fmt::format(" ({} --set train.{} --set train.on_extend=rescale)",
                     train_command(recipe.output.dir), length);
}

}  // namespace

std::optional<trainer::TrainState> read_begun_state(const Recipe& recipe, const RunDirectory& run,
                                                    distributed::Group& group) {
  if (!run.checkpoint()) return std::nullopt;
  trainer::TrainState state;
  if (group.leads()) {
    state = trainer::read_train_state(*run.checkpoint());
    if (const std::string metrics = run.file("metrics.jsonl"); fs::exists(metrics))
      state.stale_evaluations =
          stale_evaluations(io::read_bytes(metrics), recipe.train.early_stopping_min_delta, state);
  }
  hand_on_state(group, state);
  return state;
}

trainer::TrainState starting_state(const Recipe& recipe,
                                   const std::optional<trainer::TrainState>& begun,
                                   distributed::Group& group) {
  const c10::Device device = device_of(recipe);
  model::require_own_devices(recipe.model, device, group.place().local_size);
  trainer::TrainState state;
  if (begun) {
    state = *begun;
  } else {
    state.choices = new_choices(recipe, device, group);
    hand_on_state(group, state);
  }
  compare_with_machine(state.choices, device.str());
  state.choices.device = device.str();
  fill_in_dtypes(recipe, state.choices);
  return state;
}

Recipe with_choices(Recipe recipe, const trainer::TrainState& state) {
  recipe.train.compute_dtype = state.choices.compute_dtype;
  recipe.model.dtype = state.choices.model_dtype;
  return recipe;
}

Recipe as_recorded(Recipe recipe, const trainer::TrainState& state) {
  recipe.model.dtype = state.choices.model_dtype;
  return recipe;
}

void require_on_extend(const Recipe& recipe, int64_t horizon, int64_t total) {
  const std::string& wish = recipe.train.on_extend;
  if (total <= horizon || wish == "rescale") return;
  if (optim::LrSchedule(recipe.optim, horizon).ends_at_zero())
    fail<ConfigError>(
        "train.on_extend: the run was laid out for {0} steps and is now to have {1}, and the "
        "learning rate of optim.schedule {2} ends at 0 after {0}: to continue there trains "
        "nothing; set train.on_extend to rescale{3}, by which the rate follows the longer course, "
        "or "
        "start another run with lora.from_adapter",
        horizon, total, recipe.optim.schedule, command_of_rescale(recipe));
  if (wish == "continue") return;
  fail<ConfigError>(
      "train.on_extend: the run was laid out for {} steps and is now to have {}; say what the "
      "learning rate does: continue (stays at the end of its course) or rescale (follows the "
      "longer course)",
      horizon, total);
}

void extend(const Recipe& recipe, const data::PreparedData& data, const data::Loader& loader,
            trainer::TrainState& state) {
  if (state.horizon == 0) return;
  compare_rows(data, state);  // first: of other rows the run may have other steps
  const int64_t total = total_steps(recipe, loader, state.horizon);
  require_on_extend(recipe, state.horizon, total);
  if (total > state.horizon && recipe.train.on_extend == "rescale") state.horizon = total;
}

void complete_state(const Recipe& recipe, const BaseModel& base, const data::PreparedData& data,
                    const data::Loader& loader, const distributed::Group& group,
                    trainer::TrainState& state) {
  const model::Architecture& architecture = base.model->architecture();
  check_row_lengths(data.train, recipe.data.train, architecture);
  check_row_lengths(data.eval, recipe.data.eval.empty() ? recipe.data.train : recipe.data.eval,
                    architecture);
  const int64_t total = total_steps(recipe, loader, state.horizon);
  if (state.horizon > 0) {
    compare_base(base, state);
    record_rows(data, state);  // more than before, if the run is to be longer
    warn_of_rates(recipe, std::max(total, state.step), state.horizon);
    report_recomputation(base, state);
    return;
  }
  state.horizon = total;
  warn_of_rates(recipe, total, state.horizon);
  if (recipe.train.compute_dtype == "float16") state.loss_scale.value = trainer::kFirstLossScale;
  state.base_hash = base.record.hash;
  record_rows(data, state);
  const trainer::PlannedRun run =
      planned_run(recipe, *base.model, longest_sequence(recipe, loader), group.size());
  state.choices.recompute_layers = trainer::choose_recomputation(
      recipe.train.gradient_checkpointing, run,
      free_within_limit(recipe, run,
                        free_memory_of_rank(base.model->device(), group.place().local_size)));
  report_recomputation(base, state);
}

void go_on_from(const std::string& checkpoint, const trainer::CheckpointParts& parts,
                distributed::Group& group) {
  // What this start has found: train.on_extend may have changed the horizon, and
  // train.early_stopping_min_delta which evaluations gained something.
  const trainer::TrainState found = parts.state;
  if (group.leads())
    trainer::load_checkpoint(checkpoint, parts);
  else
    parts.adapters.publish();  // as reading does: DoRA's norms are of a base that ranks may share
  hand_on_checkpoint(group, parts);
  parts.state.horizon = found.horizon;
  parts.state.stale_evaluations = found.stale_evaluations;
  parts.state.choices.device = found.choices.device;
  parts.state.data_fingerprint = found.data_fingerprint;
  parts.state.first_examples = found.first_examples;
  log::info("going on from {} (step {})", checkpoint, parts.state.step);
}

}  // namespace qlora::recipes
