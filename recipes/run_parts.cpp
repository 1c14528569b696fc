#include "recipes/run_parts.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include <fmt/ranges.h>

#include "base/arena_allocator.h"
#include "base/cgroup.h"
#include "base/device.h"
#include "base/error.h"
#include "base/instruction_set.h"
#include "base/log.h"
#include "export/adapter.h"
#include "model/hub_cache.h"
#include "model/model_header.h"
#include "recipes/adapter_on_base.h"
#include "recipes/compute_dtype.h"
#include "recipes/forecast.h"
#include "recipes/long_rows.h"
#include "recipes/plan.h"
#include "recipes/stop_sentence.h"
#include "recipes/training_facts.h"
#include "trainer/memory_fit.h"
#include "trainer/memory_report.h"
#include "trainer/step_profile.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

data::LoaderOptions loader_options(const Recipe& recipe) {
  data::LoaderOptions options;
  options.sequence_length = recipe.data.sequence_length;
  options.packing = recipe.data.packing;
  options.shuffle = recipe.data.shuffle;
  options.micro_batch_size = recipe.train.micro_batch_size;
  options.gradient_accumulation_steps = recipe.train.gradient_accumulation_steps;
  options.seed = recipe.train.seed;
  return options;
}

// Tokens of the fullest sequence there can be.
int64_t longest_sequence(const Recipe& recipe, const data::Loader& loader) {
  if (recipe.data.packing) return recipe.data.sequence_length;
  int64_t longest = 1;
  for (const data::Example& example : loader.examples())
    longest = std::max(longest, example.length());
  return longest;
}

void compare_with_checkpoint(const BaseModel& base, const data::PreparedData& data,
                             const trainer::TrainState& state) {
  if (state.base_hash != base.record.hash) {
    fail<ConfigError>(
        "model.path: {} holds other weights than the run began with (hash {}, then {}); give the "
        "same model, or start another run",
        base.path, base.record.hash, state.base_hash);
  }
  if (state.data_fingerprint != data.fingerprint()) {
    fail<ConfigError>(
        "data.train: the rows are others than the run began with (fingerprint {}, then {}); "
        "restore the files, or start another run",
        data.fingerprint(), state.data_fingerprint);
  }
}

void extend(const Recipe& recipe, int64_t total, trainer::TrainState& state) {
  if (total <= state.horizon) return;
  if (recipe.train.on_extend.empty()) {
    fail<ConfigError>(
        "train.on_extend: the run was laid out for {} steps and is now to have {}; say what the "
        "learning rate does: continue (stays at the end of its course) or rescale (follows the "
        "longer course)",
        state.horizon, total);
  }
  if (recipe.train.on_extend == "rescale") state.horizon = total;
}

// What is trained beside the adapters, and what follows from it.
void report_trained_parts(const Recipe& recipe, const BaseModel& base,
                          const lora::AdapterSet& adapters) {
  int64_t tensors = 0, numbers = 0;
  for (const lora::AdapterTensor& tensor : adapters.tensors()) {
    if (tensor.name.find(".lora_") != std::string::npos || tensor.name.ends_with(".bias")) continue;
    ++tensors;
    numbers += tensor.value.numel();
  }
  if (tensors > 0)
    log::info("trained beside the adapters: {} tensors, {:.2f} M parameters", tensors,
              static_cast<double>(numbers) / 1e6);
  const bool adapter_on_head = base.model->head.layers().front().adapter != nullptr;
  const std::string tying =
      lora::tying_sentence(recipe.lora, adapters.embeddings(),
                           base.model->architecture().tied_embeddings, adapter_on_head);
  if (!tying.empty()) log::write_info(tying);
  const std::string refusal = lora::refusal_sentence(recipe.lora);
  if (!refusal.empty()) log::write_warning(refusal);
}

// model.dtype auto: as an adapter to go on from says its base was held, or else as the file has it.
std::string resolved_model_dtype(const Recipe& recipe) {
  if (recipe.model.dtype != "auto") return recipe.model.dtype;
  if (!recipe.lora.from_adapter.empty())
    if (const auto record = lora::read_adapter_base(recipe.lora.from_adapter)) return record->dtype;
  return model::read_model_header(recipe.model.path).dtype;
}

void report_recomputation(const BaseModel& base, const trainer::TrainState& state) {
  const int64_t layers = base.model->architecture().num_layers();
  if (const int64_t count = state.choices.recompute_layers.count(layers); count > 0)
    log::info("{} of {} layers are recomputed in the backward pass", count, layers);
}

}  // namespace

void adopt_adapter_options(Recipe& recipe) {
  if (recipe.lora.from_adapter.empty()) return;
  const bool has_model = model::find_model(recipe.model.path).has_value();
  lora::LoraOptions adopted =
      fit_adapter(recipe.lora.from_adapter,
                  has_model ? recipe.model.path : with_saved_base(recipe).model.path)
          .options;
  adopted.from_adapter = recipe.lora.from_adapter;
  adopted.init = recipe.lora.init;
  adopted.plus_lr_ratio = recipe.lora.plus_lr_ratio;
  adopted.dtype = recipe.lora.dtype;
  recipe.lora = adopted;
}

void name_trained_tokens(Recipe& recipe) {
  lora::LoraOptions& lora = recipe.lora;
  if (lora.trainable_tokens.empty()) return;
  const auto tokenizer = data::load_tokenizer(model::resolve_model_path(recipe.model.path));
  std::vector<int64_t>& ids = lora.trainable_token_indices["embed_tokens"];
  for (const std::string& token : lora.trainable_tokens) {
    const auto id = tokenizer->token_to_id(token);
    if (!id)
      fail<ConfigError>("lora.trainable_tokens: '{}' is no token of {}", token, recipe.model.path);
    if (std::ranges::find(ids, *id) == ids.end()) ids.push_back(*id);
  }
  lora.trainable_tokens.clear();
}

trainer::TrainState begin_or_read_state(const Recipe& recipe, const RunDirectory& run) {
  trainer::TrainState state;
  const std::string device = device_from_string(recipe.train.device).str();
  if (run.checkpoint()) {
    state = trainer::read_train_state(*run.checkpoint());
    if (state.choices.device != device) {
      fail<ConfigError>(
          "train.device: the run began on {} and would go on on {}, where sums are rounded "
          "differently; set train.device to {}, or start another run with lora.from_adapter",
          state.choices.device, device, state.choices.device);
    }
    if (state.choices.instruction_set != to_string(instruction_set())) {
      log::warning(
          "the run began with the instructions {}, now there are {}: the last bits may differ",
          state.choices.instruction_set, to_string(instruction_set()));
    }
    // Of a version that had bfloat16 where nothing was said.
    if (state.choices.compute_dtype.empty())
      state.choices.compute_dtype =
          recipe.train.compute_dtype == "auto" ? "bfloat16" : recipe.train.compute_dtype;
    if (state.choices.model_dtype.empty())
      state.choices.model_dtype = recipe.model.dtype == "auto" ? "bfloat16" : recipe.model.dtype;
    return state;
  }
  state.choices.threads = recipe.train.threads > 0 ? recipe.train.threads : usable_cores();
  state.choices.instruction_set = to_string(instruction_set());
  state.choices.device = device;
  state.choices.compute_dtype =
      resolved_compute_dtype(recipe.train.compute_dtype, device_from_string(device));
  state.choices.model_dtype = resolved_model_dtype(recipe);
  state.choices.narrow_gates =
      keeps_narrow_gates(recipe.train.compute_dtype, device_from_string(device));
  return state;
}

Recipe with_choices(Recipe recipe, const trainer::TrainState& state) {
  recipe.train.compute_dtype = state.choices.compute_dtype;
  recipe.model.dtype = state.choices.model_dtype;
  return recipe;
}

c10::Device set_up_machine(const Recipe& recipe, const trainer::TrainState& state) {
  use_arena_for_cpu_tensors();
  set_num_threads(state.choices.threads);
  log::info("device {}, {} threads, {}", state.choices.device, state.choices.threads,
            state.choices.instruction_set);
  const c10::Device device(state.choices.device);
  log::write_info(
      compute_dtype_sentence(recipe.train.compute_dtype, state.choices.compute_dtype, device));
  if (device.is_cpu() && instruction_set() == InstructionSet::kBaseline)
    log::warning("products without AVX2 ({}): a step takes about five times as long as with it",
                 describe_instruction_set());
  return device;
}

data::PreparedData read_data(const Recipe& recipe, const ModelText& text) {
  data::PreparedData data =
      data::prepare_datasets(recipe.data, *text.tokenizer, text.chat_template.get(),
                             recipe.train.seed, text.embedding_rows);
  for (const auto* reports : {&data.train_reports, &data.eval_reports})
    for (const data::DatasetReport& report : *reports) log::write_info(data::to_text(report));
  for (const std::string& warning : data.warnings) log::write_warning(warning);
  return data;
}

data::Loader make_loader(const Recipe& recipe, const data::PreparedData& data) {
  return data::Loader(data.train, loader_options(recipe));
}

int64_t total_steps(const Recipe& recipe, const data::Loader& loader) {
  if (recipe.train.max_steps > 0) return recipe.train.max_steps;
  const auto whole = static_cast<int64_t>(std::floor(recipe.train.epochs));
  int64_t steps = 0;
  for (int64_t epoch = 0; epoch < whole; ++epoch) steps += loader.steps_in_epoch(epoch);
  const double part = recipe.train.epochs - static_cast<double>(whole);
  if (part > 0) steps += std::llround(part * static_cast<double>(loader.steps_in_epoch(whole)));
  return std::max<int64_t>(steps, 1);
}

void complete_state(const Recipe& recipe, const BaseModel& base, const data::PreparedData& data,
                    const data::Loader& loader, trainer::TrainState& state) {
  const model::Architecture& architecture = base.model->architecture();
  warn_of_long_rows(data.train, recipe.data.train, architecture);
  warn_of_long_rows(data.eval, recipe.data.eval.empty() ? recipe.data.train : recipe.data.eval,
                    architecture);
  const int64_t total = total_steps(recipe, loader);
  if (state.horizon > 0) {
    compare_with_checkpoint(base, data, state);
    extend(recipe, total, state);
    report_recomputation(base, state);
    return;
  }
  state.horizon = total;
  if (recipe.train.compute_dtype == "float16") state.loss_scale.value = trainer::kFirstLossScale;
  state.base_hash = base.record.hash;
  state.data_fingerprint = data.fingerprint();
  state.choices.recompute_layers = trainer::choose_recomputation(
      recipe.train.gradient_checkpointing,
      planned_run(recipe, *base.model, longest_sequence(recipe, loader)),
      free_memory_bytes(base.model->device()));
  report_recomputation(base, state);
}

lora::AdapterSet attach_adapters(const Recipe& recipe, const BaseModel& base) {
  lora::AdapterSet adapters(recipe.lora, base.model->parts(), base.model->compute_dtype(),
                            recipe.train.seed, base.factors);
  if (const std::string& from = recipe.lora.from_adapter; !from.empty()) {
    require_same_base(from, base);
    lora::read_adapter_tensors(from, adapters, fit_adapter(from, base.path).base_copies);
  }
  for (const lora::TargetMatch& match : adapters.matches())
    log::info("lora.targets {}: {} modules, {:.2f} M parameters", match.pattern, match.modules(),
              static_cast<double>(match.parameters) / 1e6);
  report_trained_parts(recipe, base, adapters);
  return adapters;
}

void look_for_trained_tokens(const lora::AdapterSet& adapters, const data::PreparedData& data) {
  const lora::TrainedEmbeddings& trained = adapters.embeddings();
  std::set<int64_t> unseen(trained.embedding_ids.begin(), trained.embedding_ids.end());
  for (const data::Example& example : data.train)
    for (const int32_t token : example.tokens) unseen.erase(token);
  if (!unseen.empty())
    log::warning("lora.trainable_token_indices: no training row holds {} of the {} tokens ({}): {}",
                 unseen.size(), trained.embedding_ids.size(), fmt::join(unseen, ", "),
                 trained.shared ? "lm_head learns only not to say them" : "they stay as they are");
}

std::vector<optim::Parameter> parameters_of(const Recipe& recipe,
                                            const lora::AdapterSet& adapters) {
  std::vector<optim::Parameter> parameters;
  for (const lora::AdapterTensor& tensor : adapters.tensors()) {
    const bool is_b = tensor.name.ends_with(".lora_B.weight");
    parameters.push_back({.name = tensor.name,
                          .value = tensor.value,
                          .gradient = tensor.gradient,
                          .lr_scale = is_b ? recipe.lora.plus_lr_ratio : 1.0,
                          .weight_decay = recipe.optim.weight_decay_of(tensor.name)});
  }
  return parameters;
}

void go_on_from(const std::string& checkpoint, const trainer::CheckpointParts& parts) {
  const int64_t horizon = parts.state.horizon;  // train.on_extend may have changed it
  trainer::load_checkpoint(checkpoint, parts);
  parts.state.horizon = horizon;
  log::info("going on from {} (step {})", checkpoint, parts.state.step);
}

trainer::ReportOptions report_options(const Recipe& recipe, const data::PreparedData& data) {
  return {recipe.train.log_every, recipe.train.eval_every, tokens_of(data.eval)};
}

void set_up_job(const Recipe& recipe, const data::PreparedData& data, const std::string& run_dir,
                const trainer::CheckpointParts& parts, trainer::RunReport& report,
                trainer::TrainJob& job) {
  job.total_steps = total_steps(recipe, job.loader);
  job.max_grad_norm = recipe.optim.max_grad_norm;
  job.audit = recipe.train.audit;
  job.scales_loss = recipe.train.compute_dtype == "float16";
  job.seed = recipe.train.seed;
  job.rounding = {recipe.lora.dtype == "bfloat16", recipe.optim.stochastic_rounding,
                  recipe.train.seed};
  job.eval_every = recipe.train.eval_every;
  job.save_every = recipe.train.save_every;
  job.patience = recipe.train.early_stopping_patience;
  trainer::PlannedRun planned =
      planned_run(recipe, job.model, longest_sequence(recipe, job.loader));
  planned.recompute_layers = parts.state.choices.recompute_layers;
  job.report = [&report,
                profile = trainer::StepProfile((fs::path(run_dir) / "profile.json").string(),
                                               recipe.train.profile_steps, job.model.device()),
                memory = trainer::MemoryReport(trainer::plan_memory(planned).training_peak(),
                                               job.model.device())](
                   const trainer::StepMetrics& metrics) mutable {
    profile.after_step();
    report.step(metrics);
    memory.after_step(metrics.step == metrics.total_steps);
  };
  job.save = [&recipe, &report, run_dir, parts] {
    report.sync();
    trainer::save_checkpoint(run_dir, parts);
    // Before the rotation, which may remove what was the best one.
    if (parts.state.best_step == parts.state.step)
      trainer::point_best_at(run_dir, parts.state.best_step);
    trainer::rotate_checkpoints(run_dir, recipe.train.save_total_limit, parts.state.best_step);
  };
  job.evaluate = [&data, &report, run_dir, parts, save = job.save, &model = job.model,
                  plateau = recipe.optim, min_delta = recipe.train.early_stopping_min_delta] {
    if (data.eval.empty()) return;
    trainer::TrainState& state = parts.state;
    const trainer::Evaluation evaluation = trainer::evaluate_loss(model, data.eval);
    const bool is_best = evaluation.loss < state.best_eval_loss;
    const bool gained = evaluation.loss < state.best_eval_loss - min_delta;
    state.stale_evaluations = gained ? 0 : state.stale_evaluations + 1;
    if (plateau.schedule == "reduce_on_plateau") {
      const double before = state.plateau.factor;
      state.plateau.evaluated(evaluation.loss, plateau);
      if (state.plateau.factor < before)
        log::info("the evaluation loss stays; the learning rate is now {:.3g}",
                  plateau.lr * state.plateau.factor);
    }
    report.evaluation(state.step, evaluation, is_best);
    if (!is_best) return;
    state.best_eval_loss = evaluation.loss;
    state.best_step = state.step;
    save();
  };
}

void require_same_base(const std::string& adapter, const BaseModel& base) {
  const auto record = lora::read_adapter_base(adapter);
  if (!record || record->hash == base.record.hash) return;
  fail<ConfigError>(
      "{}: the adapter was trained on another base ({}, quantization {}, hash {}) than {} "
      "(quantization {}, hash {}); give that base, or remove qlora_base.json from the adapter to "
      "use it here",
      adapter, record->path, record->quantization.to_text(), record->hash, base.path,
      base.record.quantization.to_text(), base.record.hash);
}

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
  log::info("try it: qlora chat {}", run.path());
  log::info("export: qlora export {} --format merged --output DIR", run.path());
}

}  // namespace qlora::recipes
