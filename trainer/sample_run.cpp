#include "trainer/sample_run.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "base/seed.h"
#include "lora/expert_names.h"
#include "lora/targets.h"
#include "lora/whole_modules.h"
#include "model/load.h"
#include "optim/grad_clip.h"
#include "trainer/train_step.h"

namespace qlora::trainer {
namespace {

// So many layers of one kind.
model::Architecture of_kind(model::Architecture architecture, uint8_t kind, int64_t num_layers) {
  architecture.decoder.kind_of.assign(static_cast<size_t>(num_layers), kind);
  return architecture;
}

// The options with other targets, which are modules, and the head if it is one.
lora::LoraOptions with_targets(const lora::LoraOptions& given, std::vector<std::string> modules,
                               const std::string& head) {
  lora::LoraOptions options = given;
  if (lora::is_target(given, head)) modules.push_back(head);
  std::set<std::string> parameters;
  for (const std::string& module : modules)
    if (lora::is_parameter(module)) parameters.insert(lora::parameter_path(module));
  std::erase_if(modules, lora::is_parameter);
  options.target_parameters.assign(parameters.begin(), parameters.end());
  options.targets = std::move(modules);
  options.exclude_modules.clear();
  options.layers_to_transform.clear();
  return options;
}

// Without those of modules_to_save that only other layers of the whole model have.
void leave_out_absent_modules(const lora::TrainableParts& sample, lora::LoraOptions& options) {
  std::vector<std::string> present = {sample.names.embedding, sample.names.head};
  for (const lora::LinearGroup* group : sample.groups)
    for (const lora::LoraLinear& layer : group->layers()) present.push_back(layer.name);
  for (const auto& [name, norm] : sample.norms) present.push_back(name);
  std::erase_if(options.modules_to_save, [&](const std::string& name) {
    return std::ranges::none_of(present,
                                [&](const std::string& module) { return module.ends_with(name); });
  });
}

// Those of the run. Where they choose modules of layers of other kinds alone: all modules of this
// one but experts. Gradients pass through such layers as through others, and adapters cost little
// beside.
lora::LoraOptions options_on_kind(const PlannedRun& run, uint8_t kind) {
  const model::StackSpec& whole = run.architecture.decoder;
  bool of_kind = false, of_others = false;
  for (int64_t layer = 0; layer < whole.num_layers(); ++layer)
    whole.block(layer).for_each_linear([&](const model::LinearSpec& linear) {
      if (!lora::is_target(run.lora, run.architecture.module(layer, linear.names))) return;
      (whole.kind_of[static_cast<size_t>(layer)] == kind ? of_kind : of_others) = true;
    });
  if (of_kind || !of_others) return run.lora;
  lora::LoraOptions on_all = run.lora;
  on_all.targets = {"all-linear"};
  on_all.target_parameters.clear();
  on_all.exclude_modules.clear();
  on_all.layers_to_transform.clear();
  return on_all;
}

// Adapters on those modules of two adapted layers that the options choose, under the names that the
// layers have in the whole model. The model's layers are of one kind.
lora::LoraOptions adapters_of(const PlannedRun& run, model::CausalLm& model) {
  const model::StackSpec& whole = run.architecture.decoder;
  const uint8_t kind = model.architecture().decoder.kind_of.front();
  const lora::LoraOptions on_kind = options_on_kind(run, kind);
  std::vector<std::string> targets;
  size_t found = 0;
  for (int64_t layer = 0; layer < whole.num_layers() && found < model.layers.size(); ++layer) {
    if (whole.kind_of[static_cast<size_t>(layer)] != kind) continue;
    std::vector<std::string> modules, chosen;
    whole.block(layer).for_each_linear([&](const model::LinearSpec& linear) {
      modules.push_back(run.architecture.module(layer, linear.names));
    });
    std::ranges::copy_if(modules, std::back_inserter(chosen), [&](const std::string& module) {
      return lora::is_target(on_kind, module);
    });
    if (chosen.empty()) continue;
    targets.insert(targets.end(), chosen.begin(), chosen.end());
    size_t index = 0;
    for (lora::LinearGroup* group : model.layers[found++].groups())
      for (lora::LoraLinear& linear : group->layers()) linear.name = modules[index++];
  }
  // If fewer layers are adapted than the sample has: the rest must not have the names of those.
  for (; found < model.layers.size(); ++found)
    for (lora::LinearGroup* group : model.layers[found].groups())
      for (lora::LoraLinear& linear : group->layers()) linear.name = "unadapted_" + linear.name;
  lora::LoraOptions options =
      with_targets(run.lora, std::move(targets), run.architecture.head.names.hugging_face);
  leave_out_absent_modules(model.parts(), options);
  options.from_adapter.clear();
  options.init = "default";
  return options;
}

// Rows of made-up tokens, all of them supervised.
data::Loader loader_of(const Sample& sample, int64_t vocab) {
  std::vector<data::Example> rows(static_cast<size_t>(sample.rows));
  for (size_t r = 0; r < rows.size(); ++r) {
    for (int64_t i = 0; i < sample.length; ++i)
      rows[r].tokens.push_back(static_cast<data::TokenId>(
          uniform_integer(r, static_cast<uint64_t>(i), static_cast<uint64_t>(vocab))));
    rows[r].supervised.assign(rows[r].tokens.size(), 1);
  }
  data::LoaderOptions options;
  options.sequence_length = sample.length;
  options.packing = false;
  options.micro_batch_size = sample.rows;
  return data::Loader(std::move(rows), options);
}

}  // namespace

SampleRun::SampleRun(const Calibration& calibration, const Sample& sample, uint8_t kind,
                     int64_t num_layers, Progress& progress)
    : loader_(loader_of(sample, calibration.run.architecture.vocab_size)),
      progress_(progress),
      seconds_(calibration.seconds) {
  const PlannedRun& run = calibration.run;
  const auto source =
      model::made_weights(of_kind(run.architecture, kind, num_layers), calibration.packed);
  model_ = model::load_model(*source, run.model, calibration.quantization, calibration.device,
                             run.compute);
  model_->narrow_gates = run.narrow_gates;
  adapters_ = std::make_unique<lora::AdapterSet>(adapters_of(run, *model_), model_->parts(),
                                                 run.compute, 1);
  std::vector<optim::Parameter> parameters;
  for (const lora::AdapterTensor& t : adapters_->tensors())
    parameters.push_back({.name = t.name, .value = t.value, .gradient = t.gradient});
  optim::OptimizerOptions options = run.optim;
  options.paged_resident_bytes = 0;
  optimizer_ = optim::make_optimizer(options, parameters);
  job_.reset(new TrainJob{*model_, *adapters_, *optimizer_, parameters,
                          optim::LrSchedule(options, 1), loader_, state_});
}

SampleRun::~SampleRun() = default;

void SampleRun::step() {
  accumulate_gradients(*job_, loader_.next());
  const auto norm = optim::gradient_norm(adapters_->gradients(), 1.0);
  optimizer_->step(0.0, norm.scale);
  adapters_->publish();
  progress_.advance();
}

lora::LoraOptions lora_of_sample(const PlannedRun& run, const model::Architecture& sample) {
  std::vector<std::string> targets;
  int64_t next = 0;
  for (int64_t layer = 0; layer < run.architecture.num_layers() && next < sample.num_layers();
       ++layer) {
    const size_t before = targets.size();
    run.architecture.block(layer).for_each_linear([&](const model::LinearSpec& linear) {
      if (lora::is_target(run.lora, run.architecture.module(layer, linear.names)))
        targets.push_back(sample.module(next, linear.names));
    });
    if (targets.size() > before) ++next;
  }
  lora::LoraOptions options =
      with_targets(run.lora, std::move(targets), run.architecture.head.names.hugging_face);
  return options.targets.empty() ? run.lora : options;
}

}  // namespace qlora::trainer
