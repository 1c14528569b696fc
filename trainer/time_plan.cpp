#include "trainer/time_plan.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "base/cgroup.h"
#include "base/device.h"
#include "base/processor_share.h"
#include "base/profile.h"
#include "base/progress.h"
#include "base/stopwatch.h"
#include "trainer/attention_sample.h"
#include "trainer/product_rate.h"
#include "trainer/sample_run.h"

namespace qlora::trainer {
namespace {

constexpr int64_t kLayers = 2;
// Operations of a measured step at most, a second or a few of work. With fewer, long micro-batches
// would be measured in a processor's cache, where they do not fit, and on a GPU the launches of
// kernels instead of what they do.
constexpr double kCpuOperations = 1e12, kGpuOperations = 1e14;
constexpr int64_t kFewestTokens = 64;
// Of these, what a document may take in which attention is measured by itself.
constexpr double kAttentionShare = 0.05;
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

// How many of them are measured.
int64_t sampled_layers(const model::Architecture& architecture, uint8_t kind) {
  return std::min(layers_of_kind(architecture, kind), kLayers);
}

// On average.
double weights_of_layer(const model::Architecture& architecture) {
  double weights = 0;
  for (int64_t layer = 0; layer < architecture.num_layers(); ++layer)
    weights += static_cast<double>(architecture.block(layer).active_numbers());
  return weights / static_cast<double>(architecture.num_layers());
}

// Of the run's documents, each of which is a whole sequence.
int64_t document_length(const PlannedRun& run) {
  return std::min(run.sequence_length, run.architecture.longest_document());
}

// Of attention forward, a token of documents of `length` tokens, in a layer on average.
double attention_of_layer(const model::Architecture& architecture, int64_t length) {
  double operations = 0;
  for (int64_t layer = 0; layer < architecture.num_layers(); ++layer)
    for (const model::Branch& branch : architecture.block(layer).branches)
      if (const model::AttentionSpec* attention = branch.attention())
        operations += attention_operations(attention->shape, length);
  return operations / static_cast<double>(architecture.num_layers());
}

// Multiplications and additions of a step, a token of documents of `length` tokens: of the products
// with weights forward and towards the input, of attention forward and backward, and of both once
// more forward in layers that are recomputed.
double operations_a_token(const model::Architecture& architecture, double layers, double recomputed,
                          int64_t length) {
  const auto head = static_cast<double>(architecture.head.numbers());
  return (4 * layers + 2 * recomputed) * weights_of_layer(architecture) + 4 * head +
         (3.5 * layers + recomputed) * attention_of_layer(architecture, length);
}

double operations_a_sample_token(const PlannedRun& run, int64_t length) {
  return operations_a_token(run.architecture, kLayers, kLayers, length);
}

// How often the head is passed forward: for pairs of answers once more (preference_objective.h).
double head_passes(const PlannedRun& run) { return run.pairs ? 2 : 1; }
// What that makes of the head's stages, of which half is the way back.
double head_growth(const PlannedRun& run) { return (1 + head_passes(run)) / 2; }

// As long documents as take so many operations at most, in steps of 64 tokens, and as many of them.
Sample sample_of(const PlannedRun& run, double operations) {
  const auto takes = [&](int64_t length) {
    return static_cast<double>(length) * operations_a_sample_token(run, length);
  };
  const int64_t longest = document_length(run);
  int64_t fit = 1, too_many = (longest + kFewestTokens - 1) / kFewestTokens + 1;
  while (fit + 1 < too_many) {
    const int64_t middle = std::midpoint(fit, too_many);
    (takes(middle * kFewestTokens) <= operations ? fit : too_many) = middle;
  }
  const int64_t length = std::min(fit * kFewestTokens, longest);
  const auto rows = static_cast<int64_t>(operations / takes(length));
  return {std::clamp<int64_t>(rows, 1, run.sequences()), length};
}

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

// By which a step's stages are timed; on the processor, other programs do not count.
ProfileClock clock_of(c10::Device device) {
  const bool one_thread = device.is_cpu() && at::get_num_threads() == 1;
  return one_thread ? ProfileClock::kProcessor : ProfileClock::kWall;
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
  {
    const Profiling profiling(synchronized, clock_of(device));
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

// How often a stage of the sample fits into a step of the run, where a token's attention takes so
// many times as long as in the sample.
double growth(const std::string& stage, const Calibration& calibration, const Sample& sample,
              uint8_t kind, bool recomputed, const AttentionTime& attention) {
  const PlannedRun& run = calibration.run;
  const auto micro_batches = static_cast<double>(calibration.gradient_accumulation_steps);
  const model::BlockSpec& block = run.architecture.decoder.kinds[kind];
  const auto measured = static_cast<double>(sampled_layers(run.architecture, kind));
  const auto num_layers = static_cast<double>(run.architecture.num_layers());
  const double layers = num_layers / measured;
  const double tokens =
      micro_batches * static_cast<double>(run.tokens()) / static_cast<double>(sample.tokens());
  if (stage == "dequantize") return layers * micro_batches;
  if (stage == "optimizer" || stage == "publish" || stage == "gradient norm") return layers;
  if (stage == "attention") return layers * tokens * attention.forward;
  if (stage == "attention backward") return layers * tokens * attention.backward;
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

// Seconds of each stage of the run's step, with the run's share of recomputed layers, and of all
// stages together if the run's documents were only as long as the sample's.
struct PlannedStages {
  std::map<std::string, double> seconds;
  double at_sample_length = 0;
};

PlannedStages planned_stages(SampleRun& sample_run, const Sample& sample, uint8_t kind,
                             const Calibration& calibration, const AttentionTime& attention) {
  PlannedStages stages;
  for_each_kind(sample_run, calibration, [&](bool recomputed, double share) {
    for (const StagePlan& stage : measure(sample_run, calibration.device)) {
      const auto grown = [&](const AttentionTime& by) {
        return share * stage.seconds *
               growth(stage.stage, calibration, sample, kind, recomputed, by);
      };
      stages.seconds[stage.stage] += grown(attention);
      stages.at_sample_length += grown({});
    }
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
  const double a_token = operations_a_token(run.architecture, static_cast<double>(layers),
                                            static_cast<double>(run.recompute_layers.count(layers)),
                                            document_length(run));
  const auto tokens = static_cast<double>(calibration.gradient_accumulation_steps * run.tokens());
  // Sources pass the encoder's layers, answers the decoder's; half of the tokens are either.
  const double share = run.architecture.has_encoder() ? 0.5 : 1.0;
  return {{kProductsAlone, share * tokens * a_token / rate}};
}

// What a GPU's host takes for the products of the blocks that it multiplies, in float32: forward,
// towards the input, and once more forward in layers that are recomputed.
double host_seconds(const Calibration& calibration) {
  const PlannedRun& run = calibration.run;
  if (calibration.device.is_cpu()) return 0;
  double operations = 0;
  for (int64_t layer = 0; layer < run.architecture.num_layers(); ++layer)
    if (run.placement.in_float32(layer))
      operations += (run.recompute_layers.contains(layer) ? 6 : 4) *
                    static_cast<double>(run.architecture.block(layer).active_numbers());
  if (operations == 0) return 0;
  quant::QuantizationOptions none;
  none.method = "none";
  return static_cast<double>(calibration.gradient_accumulation_steps * run.tokens()) * operations /
         product_rate(none, at::kFloat, at::kCPU);
}

// Of layers of this kind, from the sample to the run.
AttentionTime attention_growth_of(const Calibration& calibration, const Sample& sample,
                                  uint8_t kind, double operations) {
  const PlannedRun& run = calibration.run;
  const model::AttentionShape& shape = run.architecture.decoder.kinds[kind].attention().shape;
  return measure_attention_growth(shape, sample.length, document_length(run),
                                  kAttentionShare * operations, run.compute, calibration.device);
}

// Seconds of each stage, were all layers of this kind.
std::map<std::string, double> measured_kind(const Calibration& calibration, const Sample& sample,
                                            uint8_t kind, double operations, Progress& progress) {
  const AttentionTime attention = attention_growth_of(calibration, sample, kind, operations);
  const int64_t layers = sampled_layers(calibration.run.architecture, kind);
  SampleRun run(calibration, sample, kind, layers, progress);
  PlannedStages stages = planned_stages(run, sample, kind, calibration, attention);
  if (calibration.device.is_cpu()) return std::move(stages.seconds);
  const double step = gpu_step_seconds(run, calibration, sample, kind, progress);
  for (auto& [stage, seconds] : stages.seconds) seconds *= step / stages.at_sample_length;
  return std::move(stages.seconds);
}

std::vector<StagePlan> measured(const Calibration& calibration, const Sample& sample,
                                double operations) {
  Progress progress("measuring two layers of the model", 0, "steps");
  const model::StackSpec& decoder = calibration.run.architecture.decoder;
  std::map<std::string, double> stages;
  for (size_t kind = 0; kind < decoder.kinds.size(); ++kind) {
    const int64_t layers = layers_of_kind(calibration.run.architecture, static_cast<uint8_t>(kind));
    if (layers == 0) continue;
    const double share = static_cast<double>(layers) / static_cast<double>(decoder.num_layers());
    for (const auto& [stage, seconds] :
         measured_kind(calibration, sample, static_cast<uint8_t>(kind), operations, progress))
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
  const double operations = operations_at_most(calibration, rate);
  const Sample sample = sample_of(calibration.run, operations);
  const double sample_seconds = static_cast<double>(sample.tokens()) *
                                operations_a_sample_token(calibration.run, sample.length) / rate;
  const bool too_long =
      calibration.device.is_cpu() && sample_seconds > kLongestSample * calibration.seconds;
  TimePlan plan;
  if (too_long || calibration.run.architecture.has_encoder()) {
    plan.stages = arithmetic(calibration, rate);
  } else {
    const ProcessorShare share;
    plan.stages = measured(calibration, sample, operations);
    // More threads than cores take the processors from each other.
    if (clock_of(calibration.device) == ProfileClock::kWall &&
        at::get_num_threads() <= usable_cores())
      plan.taken_by_others = share.taken_by_others();
  }
  if (const double seconds = host_seconds(calibration); seconds > 0)
    plan.stages.push_back({kProductsOnHost, seconds});
  for (const StagePlan& stage : plan.stages) plan.seconds_a_step += stage.seconds;
  plan.fetch = plan_fetch(calibration.run, calibration.gradient_accumulation_steps,
                          calibration.weights_file, calibration.device);
  plan.seconds_a_step = std::max(plan.seconds_a_step, plan.fetch.seconds);
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
  small.ranks = small.micro_batches_a_rank = 1;
  small.recompute_layers = run.recompute_layers.all();
  small.placement = {};
  small.host_bytes = small.adapter_reading_bytes = 0;
  small.evaluates = false;
  return small;
}

}  // namespace qlora::trainer
