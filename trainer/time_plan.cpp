#include "trainer/time_plan.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "base/device.h"
#include "base/profile.h"
#include "base/progress.h"
#include "base/seed.h"
#include "base/stopwatch.h"
#include "lora/expert_names.h"
#include "lora/targets.h"
#include "lora/whole_modules.h"
#include "model/load.h"
#include "optim/grad_clip.h"
#include "trainer/product_rate.h"
#include "trainer/train_step.h"

namespace qlora::trainer {
namespace {

constexpr int64_t kLayers = 2;
// Operations of a measured step at most, a second or a few of work. With fewer, long micro-batches
// would be measured in a processor's cache, where they do not fit, and on a GPU the launches of
// kernels instead of what they do.
constexpr double kCpuOperations = 1e12, kGpuOperations = 1e14;
constexpr int64_t kFewestTokens = 64;
constexpr int kMostSteps = 8;
// Of the time that a mean may take: a sample that needs more is not measured.
constexpr double kLongestSample = 2;
constexpr char kRest[] = "elementwise and the rest";

// The model with so many layers at most.
model::Architecture with_layers(model::Architecture architecture, int64_t num_layers) {
  std::vector<uint8_t>& kind_of = architecture.decoder.kind_of;
  if (architecture.num_layers() > num_layers) kind_of.resize(static_cast<size_t>(num_layers));
  return architecture;
}

int64_t layers_of_kind(const model::Architecture& architecture, uint8_t kind) {
  return std::ranges::count(architecture.decoder.kind_of, kind);
}

// So many layers of one kind.
model::Architecture of_kind(model::Architecture architecture, uint8_t kind, int64_t num_layers) {
  architecture.decoder.kind_of.assign(static_cast<size_t>(num_layers), kind);
  return architecture;
}

// How many of them are measured.
int64_t sampled_layers(const model::Architecture& architecture, uint8_t kind) {
  return std::min(layers_of_kind(architecture, kind), kLayers);
}

// How much of a micro-batch is measured.
struct Sample {
  int64_t rows, length;
  int64_t tokens() const { return rows * length; }
};

// On average.
double weights_of_layer(const model::Architecture& architecture) {
  double weights = 0;
  for (int64_t layer = 0; layer < architecture.num_layers(); ++layer)
    weights += static_cast<double>(architecture.block(layer).active_numbers());
  return weights / static_cast<double>(architecture.num_layers());
}

// Multiplications and additions of the products of a step, forward and towards the input, and once
// more forward in layers that are recomputed.
double operations_a_token(const model::Architecture& architecture, double layers,
                          double recomputed) {
  const auto head = static_cast<double>(architecture.head.numbers());
  return (4 * layers + 2 * recomputed) * weights_of_layer(architecture) + 4 * head;
}

double operations_a_sample_token(const PlannedRun& run) {
  return operations_a_token(run.architecture, kLayers, kLayers);
}

// How often the head is passed forward: for pairs of answers once more (preference_objective.h).
double head_passes(const PlannedRun& run) { return run.pairs ? 2 : 1; }
// What that makes of the head's stages, of which half is the way back.
double head_growth(const PlannedRun& run) { return (1 + head_passes(run)) / 2; }

Sample sample_of(const PlannedRun& run, double operations) {
  const double tokens = operations / operations_a_sample_token(run);
  const auto most = std::max(static_cast<int64_t>(tokens) / 64 * 64, kFewestTokens);
  const int64_t length = std::min({run.sequence_length, most, run.architecture.longest_document()});
  return {std::clamp<int64_t>(most / length, 1, run.sequences()), length};
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

// Adapters on those modules of two adapted layers that the options choose, under the names that the
// layers have in the whole model. The model's layers are of one kind.
lora::LoraOptions adapters_of(const PlannedRun& run, model::CausalLm& model) {
  const model::StackSpec& whole = run.architecture.decoder;
  const uint8_t kind = model.architecture().decoder.kind_of.front();
  std::vector<std::string> targets;
  size_t found = 0;
  for (int64_t layer = 0; layer < whole.num_layers() && found < model.layers.size(); ++layer) {
    if (whole.kind_of[static_cast<size_t>(layer)] != kind) continue;
    std::vector<std::string> modules, chosen;
    whole.block(layer).for_each_linear([&](const model::LinearSpec& linear) {
      modules.push_back(run.architecture.module(layer, linear.names));
    });
    std::ranges::copy_if(modules, std::back_inserter(chosen), [&](const std::string& module) {
      return lora::is_target(run.lora, module);
    });
    if (chosen.empty()) continue;
    targets.insert(targets.end(), chosen.begin(), chosen.end());
    size_t index = 0;
    for (lora::LinearGroup* group : model.layers[found++].groups())
      for (lora::LoraLinear& linear : group->layers()) linear.name = modules[index++];
  }
  lora::LoraOptions options =
      with_targets(run.lora, std::move(targets), run.architecture.head.names.hugging_face);
  leave_out_absent_modules(model.parts(), options);
  options.from_adapter.clear();
  options.init = "default";
  return options;
}

// The options for a model of the first layers alone: of each, what they choose of the first layers
// that they adapt.
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

// A small run whose steps are taken one by one.
class SampleRun {
 public:
  SampleRun(const Calibration& calibration, const Sample& sample, uint8_t kind, int64_t num_layers,
            Progress& progress)
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

  void recompute(bool all) { state_.choices.recompute_layers = all; }

  void step() {
    accumulate_gradients(*job_, loader_.next());
    const auto norm = optim::gradient_norm(adapters_->gradients(), 1.0);
    optimizer_->step(0.0, norm.scale);
    adapters_->publish();
    progress_.advance();
  }

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

// Mean seconds of a step.
double mean_step(SampleRun& sample, c10::Device device) {
  synchronize(device);
  const Stopwatch watch;
  int steps = 0;
  while (steps < kMostSteps && (steps < 2 || watch.seconds() < sample.seconds())) {
    const ProfileScope scope(kRest);
    sample.step();
    ++steps;
  }
  synchronize(device);
  return watch.seconds() / steps;
}

// A profile is taken as long as it lives, however it is left.
class Profiling {
 public:
  Profiling(std::function<void()> synchronize, ProfileClock clock) {
    start_profile(std::move(synchronize), clock);
  }
  ~Profiling() { stop_profile(); }
  Profiling(const Profiling&) = delete;
  Profiling& operator=(const Profiling&) = delete;
};

// Seconds of each stage of one step, and of what no stage covers.
std::vector<StagePlan> measure(SampleRun& sample, c10::Device device) {
  sample.step();  // sizes buffers
  const auto synchronized =
      device.is_cpu() ? std::function<void()>() : [device] { synchronize(device); };
  const bool one_thread = device.is_cpu() && at::get_num_threads() == 1;
  {
    const Profiling profiling(synchronized,
                              one_thread ? ProfileClock::kProcessor : ProfileClock::kWall);
    mean_step(sample, device);
  }
  std::vector<StagePlan> stages;
  int64_t steps = 1;
  for (const StageTime& stage : stage_times()) {
    stages.push_back({stage.stage, stage.seconds});
    if (stage.stage == kRest) steps = stage.calls;
  }
  for (StagePlan& stage : stages) stage.seconds /= static_cast<double>(steps);
  return stages;
}

// Calls visit(recomputed, share) for layers that are recomputed and that are not, as far as the run
// has such layers.
template <typename Visit>
void for_each_kind(SampleRun& sample, const Calibration& calibration, const Visit& visit) {
  const int64_t num_layers = calibration.run.architecture.num_layers();
  const double share = static_cast<double>(calibration.run.recompute_layers.count(num_layers)) /
                       static_cast<double>(num_layers);
  for (const auto& [recomputed, weight] : {std::pair(false, 1 - share), std::pair(true, share)}) {
    if (weight == 0) continue;
    sample.recompute(recomputed);
    visit(recomputed, weight);
  }
}

// How many layers' forward products the measured ones and the head's, which are one stage, stand
// for.
double linear_growth(const PlannedRun& run, const model::BlockSpec& block, double measured,
                     bool recomputed) {
  const auto head = static_cast<double>(run.architecture.head.numbers());
  auto layer = static_cast<double>(block.active_numbers());
  if (recomputed) layer *= 2;
  // A recomputed layer's last product is taken once, if it is known which one that is.
  if (recomputed && !block.branches.back().experts())
    layer -= static_cast<double>(block.branches.back().groups().back().back().numbers());
  return (static_cast<double>(run.architecture.num_layers()) * layer + head_passes(run) * head) /
         (measured * layer + head);
}

double measure_step(SampleRun& sample, const Calibration& calibration) {
  double seconds = 0;
  for_each_kind(sample, calibration, [&](bool, double share) {
    sample.step();
    seconds += share * mean_step(sample, calibration.device);
  });
  return seconds;
}

// A GPU works beside the program, so that stages that are waited for one by one take longer than a
// step. A layer takes what a sample of two takes more than one of one layer.
double gpu_step_seconds(SampleRun& two, const Calibration& calibration, const Sample& sample,
                        uint8_t kind, Progress& progress) {
  const PlannedRun& run = calibration.run;
  const double of_two = measure_step(two, calibration);
  const int64_t measured = sampled_layers(run.architecture, kind);
  SampleRun one(calibration, sample, kind, 1, progress);
  const double of_one = measured > 1 ? measure_step(one, calibration) : 0.0;
  const double a_layer = std::max(of_two - of_one, 0.0);
  const auto more_layers =
      static_cast<double>(std::max<int64_t>(run.architecture.num_layers() - measured, 0));
  const double times = static_cast<double>(calibration.gradient_accumulation_steps * run.tokens()) /
                       static_cast<double>(sample.tokens());
  return times * (of_two + more_layers * a_layer);
}

// How often a stage of the sample fits into a step of the run.
double growth(const std::string& stage, const Calibration& calibration, const Sample& sample,
              uint8_t kind, bool recomputed) {
  const PlannedRun& run = calibration.run;
  const auto micro_batches = static_cast<double>(calibration.gradient_accumulation_steps);
  const model::BlockSpec& block = run.architecture.decoder.kinds[kind];
  const auto measured = static_cast<double>(sampled_layers(run.architecture, kind));
  const auto num_layers = static_cast<double>(run.architecture.num_layers());
  const double layers = num_layers / measured;
  const double tokens =
      micro_batches * static_cast<double>(run.tokens()) / static_cast<double>(sample.tokens());
  const double length =
      static_cast<double>(run.sequence_length) / static_cast<double>(sample.length);
  if (stage == "dequantize") return layers * micro_batches;
  if (stage == "optimizer" || stage == "publish" || stage == "gradient norm") return layers;
  if (stage == "attention" || stage == "attention backward") return layers * tokens * length;
  if (stage == "data") return tokens;
  if (stage == "head" || stage == "softmax and loss") return tokens * head_growth(run);
  if (stage == "linear") return tokens * linear_growth(run, block, measured, recomputed);
  if (stage.starts_with("norm")) {
    double norms = 0;
    block.for_each_norm([&](const model::NormSpec&) { ++norms; });
    return tokens * (norms * num_layers + 1) / (norms * measured + 1);
  }
  return layers * tokens;
}

// Seconds of each stage of the run's step, with the run's share of recomputed layers.
std::map<std::string, double> planned_stages(SampleRun& sample_run, const Sample& sample,
                                             uint8_t kind, const Calibration& calibration) {
  std::map<std::string, double> stages;
  for_each_kind(sample_run, calibration, [&](bool recomputed, double share) {
    for (const auto& [stage, seconds] : measure(sample_run, calibration.device))
      stages[stage] += share * seconds * growth(stage, calibration, sample, kind, recomputed);
  });
  return stages;
}

double operations_at_most(const Calibration& calibration, double rate) {
  if (!calibration.device.is_cpu()) return kGpuOperations;
  return std::min(kCpuOperations, rate * calibration.seconds);
}

// Where even the shortest sample takes too long, and with an encoder: what the products alone take.
std::vector<StagePlan> arithmetic(const Calibration& calibration, double rate) {
  const PlannedRun& run = calibration.run;
  const int64_t layers = run.architecture.num_layers();
  const double a_token =
      operations_a_token(run.architecture, static_cast<double>(layers),
                         static_cast<double>(run.recompute_layers.count(layers)));
  const auto tokens = static_cast<double>(calibration.gradient_accumulation_steps * run.tokens());
  // Sources pass the encoder's layers, answers the decoder's; half of the tokens are either.
  const double share = run.architecture.has_encoder() ? 0.5 : 1.0;
  return {{kProductsAlone, share * tokens * a_token / rate}};
}

// Seconds of each stage, were all layers of this kind.
std::map<std::string, double> measured_kind(const Calibration& calibration, const Sample& sample,
                                            uint8_t kind, Progress& progress) {
  const int64_t layers = sampled_layers(calibration.run.architecture, kind);
  SampleRun run(calibration, sample, kind, layers, progress);
  std::map<std::string, double> stages = planned_stages(run, sample, kind, calibration);
  if (calibration.device.is_cpu()) return stages;
  double sum = 0;
  for (const auto& [stage, seconds] : stages) sum += seconds;
  const double step = gpu_step_seconds(run, calibration, sample, kind, progress);
  for (auto& [stage, seconds] : stages) seconds *= step / sum;
  return stages;
}

std::vector<StagePlan> measured(const Calibration& calibration, const Sample& sample) {
  Progress progress("measuring two layers of the model", 0, "steps");
  const model::StackSpec& decoder = calibration.run.architecture.decoder;
  std::map<std::string, double> stages;
  for (size_t kind = 0; kind < decoder.kinds.size(); ++kind) {
    const int64_t layers = layers_of_kind(calibration.run.architecture, static_cast<uint8_t>(kind));
    if (layers == 0) continue;
    const double share = static_cast<double>(layers) / static_cast<double>(decoder.num_layers());
    for (const auto& [stage, seconds] :
         measured_kind(calibration, sample, static_cast<uint8_t>(kind), progress))
      stages[stage] += share * seconds;
  }
  std::vector<StagePlan> all;
  for (const auto& [stage, seconds] : stages) all.push_back({stage, seconds});
  return all;
}

}  // namespace

TimePlan plan_time(const Calibration& calibration) {
  const Stopwatch watch;
  const double rate =
      product_rate(calibration.quantization, calibration.run.compute, calibration.device);
  const Sample sample = sample_of(calibration.run, operations_at_most(calibration, rate));
  const double sample_seconds =
      static_cast<double>(sample.tokens()) * operations_a_sample_token(calibration.run) / rate;
  const bool too_long =
      calibration.device.is_cpu() && sample_seconds > kLongestSample * calibration.seconds;
  TimePlan plan;
  plan.stages = too_long || calibration.run.architecture.has_encoder()
                    ? arithmetic(calibration, rate)
                    : measured(calibration, sample);
  for (const StagePlan& stage : plan.stages) plan.seconds_a_step += stage.seconds;
  std::ranges::sort(plan.stages, std::ranges::greater{}, &StagePlan::seconds);
  plan.tokens_a_second =
      static_cast<double>(calibration.gradient_accumulation_steps * calibration.run.tokens()) /
      plan.seconds_a_step;
  plan.calibration_seconds = watch.seconds();
  return plan;
}

PlannedRun calibration_run(const PlannedRun& run) {
  if (run.architecture.has_encoder()) return run;
  PlannedRun small = run;
  small.architecture = with_layers(run.architecture, kLayers);
  small.lora = lora_of_sample(run, small.architecture);
  const Sample sample = sample_of(run, run.on_gpu ? kGpuOperations : kCpuOperations);
  small.sequence_length = sample.length;
  small.micro_batch_size = sample.rows;
  small.pairs = false;
  small.recompute_layers = run.recompute_layers.all();
  small.placement = {};
  small.host_bytes = 0;
  small.evaluates = false;
  return small;
}

}  // namespace qlora::trainer
