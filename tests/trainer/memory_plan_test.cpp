#include "trainer/memory_plan.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/arena_allocator.h"
#include "model/block_memory.h"
#include "model/families/family.h"
#include "model/load.h"
#include "model/made_weights.h"
#include "tests/trainer/small_plan.h"
#include "trainer/gradient_audit.h"
#include "trainer/gradient_sum.h"
#include "trainer/time_plan.h"
#include "trainer/train_step.h"

namespace qlora::trainer {
namespace {

// The planned model with adapters, and one row to train it on.
struct SmallRun {
  PlannedRun plan;
  std::unique_ptr<model::CausalLm> model;
  std::unique_ptr<lora::AdapterSet> adapters;
  std::vector<optim::Parameter> parameters;
  std::unique_ptr<optim::Optimizer> optimizer;
  data::Loader loader;
  TrainState state;
  std::unique_ptr<TrainJob> job;

  SmallRun(const quant::QuantizationOptions& quantization, int64_t tokens,
           model::RecomputedLayers recompute = {}, at::ScalarType compute = at::kBFloat16,
           const lora::LoraOptions& lora = rank_64())
      : plan(planned(quantization, tokens)), loader(row(tokens), {tokens, false}) {
    plan.recompute_layers = recompute;
    plan.compute = compute;
    plan.lora = lora;
    model = model::load_model(*model::made_weights(plan.architecture), plan.model, quantization,
                              at::kCPU, plan.compute);
    adapters = std::make_unique<lora::AdapterSet>(plan.lora, model->parts(), plan.compute, 1);
    for (const auto& t : adapters->tensors()) parameters.push_back({t.name, t.value, t.gradient});
    optimizer = optim::make_optimizer(plan.optim, parameters);
    state.choices.recompute_layers = recompute;
    job.reset(new TrainJob{*model, *adapters, *optimizer, parameters,
                           optim::LrSchedule(plan.optim, 10), loader, state});
  }

  static std::vector<data::Example> row(int64_t tokens) {
    data::Example example;
    for (int64_t i = 0; i < tokens; ++i)
      example.tokens.push_back(static_cast<data::TokenId>(i % 1000));
    example.supervised.assign(example.tokens.size(), 1);
    return {example};
  }

  model::ForwardInput input() {
    const data::StepWindow window = loader.next();
    model::ForwardInput input;
    input.tokens = window.micro_batches[0].tokens;
    input.positions = window.micro_batches[0].positions;
    input.cu_seqlens = window.micro_batches[0].cu_seqlens;
    input.training = true;
    input.recompute_layers = plan.recompute_layers;
    return input;
  }
};

// Of those buffers that the arena serves, in its units of 4 KB.
int64_t in_arena(int64_t bytes) {
  return bytes < static_cast<int64_t>(kSmallBuffer) ? 0 : (bytes + 4095) / 4096 * 4096;
}

model::PassShape pass_of(const PlannedRun& run) {
  model::PassShape pass;
  pass.hidden = 256;
  const int64_t rank = run.lora.rank;
  pass.branches = {{.in = {true, 3 * rank}, .out = {true, rank}},
                   {.in = {true, 2 * rank}, .out = {true, rank}}};
  pass.remakes_inputs = true;
  pass.tokens = pass.longest = run.sequence_length;
  return pass;
}

TEST(MemoryPlan, TheBaseTakesWhatItsLoadedTensorsTake) {
  for (const auto& options : {method("nf4"), method("nf4", false), method("fp4"), method("int8"),
                              method("int8_weight_only"), method("none")}) {
    SmallRun run(options, 64);
    int64_t linears = 0;
    for (const lora::LinearGroup* group : run.model->groups())
      for (const lora::LoraLinear& linear : group->layers()) linears += linear.base->bytes();
    const MemoryPlan plan = plan_memory(run.plan);
    EXPECT_EQ(bytes_for(plan, "base weights") + bytes_for(plan, "quantization scales"), linears)
        << options.to_text();
    const auto norms = static_cast<int64_t>(run.model->final_norm.frozen.nbytes()) * 7;
    EXPECT_EQ(bytes_for(plan, "embedding, head, norms, biases"),
              static_cast<int64_t>(run.model->embedding.weight.nbytes()) + norms);
  }
}

TEST(MemoryPlan, AdaptersAndOptimizerTakeWhatTheirBuffersTake) {
  for (const char* name : {"paged_adamw_8bit", "adamw", "lion"}) {
    SmallRun run(method("nf4"), 64);
    run.plan.optim.name = name;
    run.optimizer = optim::make_optimizer(run.plan.optim, run.parameters);
    const MemoryPlan plan = plan_memory(run.plan);
    const int64_t floats = run.adapters->num_parameters() * 4;
    EXPECT_EQ(bytes_for(plan, "adapters (float32)"), floats);
    EXPECT_EQ(bytes_for(plan, "adapters' gradients (float32)"), floats);
    EXPECT_EQ(bytes_for(plan, "adapters' copies for the products"), floats / 2);
    EXPECT_EQ(bytes_for(plan, "optimizer state"), run.optimizer->device_bytes()) << name;
  }
}

TEST(MemoryPlan, WhatIsTrainedBesideOrInsteadOfAdaptersCounts) {
  std::vector<lora::LoraOptions> all(6);
  all[0].modules_to_save = {"lm_head", "norm"};
  all[1].modules_to_save = {"embed_tokens", "lm_head"};
  all[1].ensure_weight_tying = true;
  all[2].trainable_token_indices["embed_tokens"] = {3, 5, 700};
  all[3].use_dora = true;
  all[4].targets = {"q_proj", "lm_head"};
  all[5].modules_to_save = {"v_proj"};
  all[5].layers_to_transform = {1};
  for (const lora::LoraOptions& options : all) {
    SmallRun run(method("nf4"), 64, false, at::kBFloat16, options);
    const MemoryPlan plan = plan_memory(run.plan);
    // DoRA keeps three float32 numbers more for each of the 2048 outputs of three layers.
    const int64_t norms = options.use_dora ? 3 * 3 * 2048 * 4 : 0;
    const int64_t floats = run.adapters->num_parameters() * 4;
    EXPECT_EQ(bytes_for(plan, "adapters (float32)"), floats + norms);
    EXPECT_EQ(bytes_for(plan, "adapters' gradients (float32)"), floats);
  }
}

// What lies in the arena after a forward pass with a graph, beyond what lay there before: the
// table of kept tensors, the final norm's input, and the hidden states that are returned. Equal,
// since both count whole buffers.
TEST(MemoryPlan, ALayerKeepsWhatItsTableSays) {
  use_arena_for_cpu_tensors();
  SmallRun run(method("none"), 512);
  const int64_t before = arena_statistics().used_bytes;
  const at::Tensor hidden = run.model->hidden(run.input());
  int64_t expected = in_arena(512 * 256 * 2) + in_arena(512 * 256 * 4);
  const auto nodes = node_memory(run.plan.architecture.block(0), pass_of(run.plan));
  for (const model::NodeMemory& node : nodes)
    for (const model::KeptTensor& tensor : node.kept) {
      // Rotated queries and keys, and values, share a line but not a buffer; so do gate and up.
      const std::vector<int64_t> elements =
          node.node == "attention" && tensor.elements == 512 ? std::vector<int64_t>{256, 128, 128}
          : node.node == "activation"                        ? std::vector<int64_t>{512, 512}
          : tensor.elements == 257                           ? std::vector<int64_t>{256, 1}
                                                             : std::vector{tensor.elements};
      for (const int64_t count : elements) expected += 3 * in_arena(512 * count * tensor.bytes);
    }
  EXPECT_EQ(arena_statistics().used_bytes - before, expected);
}

// The first of three layers keeps its input, the others what they keep without recomputation.
TEST(MemoryPlan, ALayerThatIsNotRecomputedKeepsWhatItsTableSays) {
  use_arena_for_cpu_tensors();
  const auto used_by = [](model::RecomputedLayers recomputed) {
    SmallRun run(method("none"), 512, recomputed);
    const int64_t before = arena_statistics().used_bytes;
    const at::Tensor hidden = run.model->hidden(run.input());
    return arena_statistics().used_bytes - before;
  };
  const int64_t none = used_by(false), all = used_by(true);
  EXPECT_EQ(3 * used_by(model::RecomputedLayers::first(1)), 2 * none + all);
  EXPECT_EQ(3 * used_by(model::RecomputedLayers::first(2)), none + 2 * all);
}

TEST(MemoryPlan, RecomputedLayersKeepTheirInputAlone) {
  use_arena_for_cpu_tensors();
  SmallRun run(method("none"), 512, true);
  const int64_t before = arena_statistics().used_bytes;
  const at::Tensor hidden = run.model->hidden(run.input());
  // The inputs of three layers; the final norm's input and output.
  EXPECT_EQ(arena_statistics().used_bytes - before,
            4 * in_arena(512 * 256 * 4) + in_arena(512 * 256 * 2));
}

// The tensors of a step at their fullest. The plan counts buffers below 64 KB, which the arena does
// not see: the norms' scales, under 1 % here; the composed attention's copies are not all alive at
// once: 3 %.
TEST(MemoryPlan, AStepsPeakIsThatOfItsTensors) {
  use_arena_for_cpu_tensors();
  struct Setting {
    int64_t tokens;
    int64_t recompute;
    at::ScalarType compute;
    const char* base = "none";
    bool narrow_gates = false;
  };
  // Each larger than the one before: the arena keeps its peak. With the last of three layers
  // recomputed too, its input is all that it adds. float16 goes through attention in float32.
  for (const Setting& s :
       {Setting{1024, 2, at::kBFloat16}, Setting{1024, 3, at::kBFloat16},
        Setting{1024, 1, at::kBFloat16}, Setting{1024, 0, at::kBFloat16},
        Setting{1280, 3, at::kFloat}, Setting{1280, 1, at::kFloat}, Setting{1280, 0, at::kFloat},
        Setting{3584, 0, at::kBFloat16, "int8"}, Setting{4096, 0, at::kBFloat16, "nf4"},
        Setting{4608, 0, at::kHalf}, Setting{4608, 0, at::kFloat, "none", true},
        Setting{9216, 3, at::kFloat, "none", true}}) {
    SmallRun run(method(s.base), s.tokens, model::RecomputedLayers::first(s.recompute), s.compute);
    run.model->narrow_gates = run.plan.narrow_gates = s.narrow_gates;
    const int64_t before = arena_statistics().used_bytes;
    accumulate_gradients(*run.job, run.loader.next());
    const int64_t measured = arena_statistics().peak_used_bytes - before;
    const MemoryPlan plan = plan_memory(run.plan);
    const int64_t predicted = plan.bytes_in_step() - bytes_for(plan, "attention's buffers") -
                              bytes_for(plan, "gaps between buffers");
    EXPECT_NEAR(static_cast<double>(predicted), static_cast<double>(measured),
                0.03 * static_cast<double>(measured))
        << s.recompute << " recomputed, " << c10::toString(s.compute) << ", " << s.base;
  }
}

// Rank 64 on three layers of 256 features: q and o (256 x 256), k and v (256 x 128), gate, up and
// down (256 x 512) have 64 (512 + 512 + 384 + 384 + 3 * 768) numbers a layer.
constexpr int64_t kTrained = 3 * 64 * 4096;

struct Copies {
  int64_t micro_batches, copies;
};

TEST(MemoryPlan, GradientsOfEarlierMicroBatchesTakeACopyForEachLevelOfTheirTree) {
  PlannedRun run = planned(method("nf4"), 512);
  const MemoryPlan one = plan_memory(run);
  ASSERT_EQ(bytes_for(one, "adapters' gradients (float32)"), 4 * kTrained);
  for (const Copies& c :
       {Copies{1, 0}, Copies{2, 1}, Copies{3, 2}, Copies{4, 2}, Copies{5, 3}, Copies{8, 3}}) {
    run.micro_batches_a_rank = c.micro_batches;
    EXPECT_EQ(bytes_for(plan_memory(run), "gradients of earlier micro-batches"),
              4 * kTrained * c.copies)
        << c.micro_batches;
  }
}

// 786,432 numbers are 157,287 for each of five ranks, filled up by three.
TEST(MemoryPlan, RanksKeepTwoBuffersOfTheGradientsSizeForTheirSums) {
  PlannedRun run = planned(method("nf4"), 512);
  const int64_t alone = plan_memory(run).bytes_in(Phase::kAlways);
  run.ranks = 4;
  EXPECT_EQ(plan_memory(run).bytes_in(Phase::kAlways) - alone, 2 * 4 * kTrained);
  run.ranks = 5;
  EXPECT_EQ(bytes_for(plan_memory(run), "buffers of the ranks' sums"), 2 * 4 * (kTrained + 3));
}

// Notes what lies in the arena when each forward pass begins, and what its backward pass adds to
// what the forward pass has left.
class Watching : public Objective {
 public:
  void begin(const data::StepWindow& window, double loss_scale) override {
    inner_->begin(window, loss_scale);
  }
  MicroBatchLoss loss(model::CausalLm& model, const model::ForwardInput& input,
                      const data::MicroBatch& batch) override {
    at_begin.push_back(arena_statistics().used_bytes);
    MicroBatchLoss part = inner_->loss(model, input, batch);
    const int64_t before = arena_statistics().used_bytes;
    part.scaled_loss.register_hook([this, before](const at::Tensor&) {
      in_backward.push_back(arena_statistics().used_bytes - before);
    });
    return part;
  }

  std::vector<int64_t> at_begin, in_backward;

 private:
  std::unique_ptr<Objective> inner_ = cross_entropy_objective();
};

TEST(MemoryPlan, GradientsOfEarlierMicroBatchesLieThereFromTheFirstForwardPassOn) {
  use_arena_for_cpu_tensors();
  SmallRun run(method("nf4"), 64);
  auto watching = std::make_unique<Watching>();
  const Watching& seen = *watching;
  run.job->objective = std::move(watching);
  data::StepWindow one = run.loader.next();
  one.micro_batches.resize(1);
  data::StepWindow five = one;
  five.micro_batches.resize(5, one.micro_batches.front());
  // The first micro-batch allocates what later ones reuse.
  for (int i = 0; i < 2; ++i) accumulate_gradients(*run.job, one);
  for (int i = 0; i < 2; ++i) accumulate_gradients(*run.job, five);
  ASSERT_EQ(seen.in_backward.size(), 12u);
  const int64_t copies = GradientSum::most_copies(5) * in_arena(4 * kTrained);
  for (size_t i = 2; i < 12; ++i) {
    EXPECT_EQ(seen.at_begin[i] - seen.at_begin[1], copies) << i;
    EXPECT_EQ(seen.in_backward[i], 0) << i;
  }
}

// Scores are as many for each token as the row has others.
TEST(MemoryPlan, T5KeepsScoresOnAGpuAlone) {
  const nlohmann::json config = {{"model_type", "t5"}, {"vocab_size", 1024},
                                 {"d_model", 256},     {"d_kv", 32},
                                 {"d_ff", 512},        {"num_heads", 8},
                                 {"num_layers", 2},    {"feed_forward_proj", "gated-gelu"}};
  PlannedRun run = planned(method("none"), 512);
  run.architecture = model::read_architecture(io::JsonNode(config, "config.json"));
  const auto kept = [&run](int64_t tokens) {
    run.sequence_length = tokens;
    return bytes_for(plan_memory(run), "activations kept");
  };
  for (const at::ScalarType compute : {at::kFloat, at::kHalf, at::kBFloat16}) {
    run.compute = compute;
    EXPECT_EQ(kept(1024), 2 * kept(512)) << c10::toString(compute);
  }
  run.on_gpu = true;
  EXPECT_GT(kept(1024), 2 * kept(512));
}

TEST(MemoryPlan, DoubleQuantizationSavesThreeEighthsOfABitAWeight) {
  const MemoryPlan with = plan_memory(planned(method("nf4"), 64));
  const MemoryPlan without = plan_memory(planned(method("nf4", false), 64));
  const double weights = 2.0 * static_cast<double>(bytes_for(with, "base weights"));
  // 32/64 - 8/64 - 32/(64 * 256) bits; maps and offsets of 1028 bytes a matrix are the rest.
  const double maps = 8.0 * 1028 * 21 / weights;
  EXPECT_NEAR(8.0 * static_cast<double>(without.peak() - with.peak()) / weights, 0.373 - maps,
              0.001);
}

// Recomputing half of the layers takes longer than halving long micro-batches; short ones leave a
// GPU idle.
TEST(MemoryPlan, EmbeddingAndHeadElsewhereLeaveAPanelOfTheHead) {
  PlannedRun run = planned(method("nf4"), 512);
  run.architecture.tied_embeddings = false;
  const MemoryPlan here = plan_memory(run);
  const int64_t matrix = 1024 * 256 * 2;
  run.placement.embedding = quant::Home::kDisk;
  run.placement.head = quant::Home::kHost;
  const MemoryPlan there = plan_memory(run);
  EXPECT_EQ(bytes_for(there, "embedding, head, norms, biases"),
            bytes_for(here, "embedding, head, norms, biases") - 2 * matrix);
  EXPECT_EQ(bytes_for(there, "base weights on disk"), matrix);
  EXPECT_EQ(bytes_for(there, "base weights in host memory"), matrix);
  EXPECT_EQ(bytes_for(there, "panel of the head"), matrix);  // which is smaller than a panel
  EXPECT_EQ(bytes_for(there, "base weights"), bytes_for(here, "base weights"));
}

TEST(MemoryPlan, AGivenAdapterIsReadWhenTheAdaptersThatItFillsAreThere) {
  constexpr const char *kMatrix = "a matrix while it is loaded",
                       *kReading = "a given adapter while it is read, and the adapters";
  PlannedRun run = planned(method("nf4"), 64);
  const MemoryPlan without = plan_memory(run);
  run.adapter_reading_bytes = 1;  // the matrix takes more
  run.lora.rank = 1;
  EXPECT_EQ(bytes_for(plan_memory(run), kMatrix), bytes_for(without, kMatrix));
  run.adapter_reading_bytes = 1'000'000'000;
  const MemoryPlan with = plan_memory(run);
  EXPECT_EQ(bytes_for(with, kMatrix), 0);
  EXPECT_EQ(bytes_for(with, kReading), 1'000'000'000 + bytes_for(with, "adapters (float32)") +
                                           bytes_for(with, "adapters' gradients (float32)") +
                                           bytes_for(with, "adapters' copies for the products"));
  EXPECT_EQ(with.peak(), with.loaded_bytes() + bytes_for(with, kReading));
  EXPECT_EQ(calibration_run(run).adapter_reading_bytes, 0);
  run.on_gpu = true;  // which the file does not reach
  const int64_t on_host = plan_memory(run).bytes_in(Phase::kHost);
  run.adapter_reading_bytes *= 2;
  const MemoryPlan on_gpu = plan_memory(run);
  EXPECT_EQ(bytes_for(on_gpu, "a given adapter while it is read"), 2'000'000'000);
  EXPECT_EQ(on_gpu.bytes_in(Phase::kHost), on_host + 1'000'000'000);
  EXPECT_GT(bytes_for(on_gpu, kMatrix), 0);
}

// A copy of the head's gradient would be the largest buffer of the step.
TEST(MemoryPlan, TheAuditOfGradientsTakesNoCopyOfThem) {
  use_arena_for_cpu_tensors();
  lora::LoraOptions options;
  options.modules_to_save = {"lm_head"};
  SmallRun run(method("none"), 64, false, at::kBFloat16, options);
  for (const lora::AdapterTensor& tensor : run.adapters->tensors()) {
    at::NoGradGuard no_grad;
    at::Tensor gradient = tensor.gradient;
    gradient.fill_(-1);  // the sign does not count
  }
  GradientAudit audit(*run.adapters, 0);
  const int64_t free = arena_statistics().peak_used_bytes - arena_statistics().used_bytes;
  const at::Tensor filler = at::empty({free}, at::kByte);
  const int64_t before = arena_statistics().peak_used_bytes;
  audit.look();
  EXPECT_EQ(audit.missing(), "");
  EXPECT_LT(arena_statistics().peak_used_bytes - before, 1024 * 256 * 4);
}

TEST(MemoryPlan, ATiedMatrixElsewhereCountsOnce) {
  PlannedRun run = planned(method("nf4"), 512);
  const MemoryPlan here = plan_memory(run);
  run.placement.embedding = run.placement.head = quant::Home::kDisk;
  const MemoryPlan there = plan_memory(run);
  EXPECT_EQ(there.bytes_in(Phase::kDisk), 1024 * 256 * 2);
  EXPECT_EQ(bytes_for(here, "embedding, head, norms, biases") -
                bytes_for(there, "embedding, head, norms, biases"),
            1024 * 256 * 2);
}

}  // namespace
}  // namespace qlora::trainer
