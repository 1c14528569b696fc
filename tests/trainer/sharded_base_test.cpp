// Training on a base of which each rank keeps a part (model.device_map: ranks) is, bit for bit,
// training on one that every rank has whole.
#include "trainer/shard_group.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <limits>
#include <set>

#include "base/error.h"
#include "base/seed.h"
#include "model/families/llama_like.h"
#include "model/load.h"
#include "model/made_weights.h"
#include "quant/formats/gguf_weight.h"
#include "quant/gguf/gguf_quantize.h"
#include "tests/support/ranks.h"
#include "tests/support/tiny_model.h"
#include "trainer/evaluate.h"
#include "trainer/train_loop.h"

namespace qlora::trainer {
namespace {
using distributed::Group;
using model::RecomputedLayers;
using quant::Home;
using test::run_ranks;

constexpr int64_t kLayers = 4, kMicroBatches = 4, kSteps = 5;

model::Architecture architecture() {
  model::LlamaSizes sizes;
  sizes.vocab_size = 61;
  sizes.hidden_size = 64;
  sizes.intermediate_size = 96;
  sizes.num_layers = kLayers;
  sizes.num_heads = 4;
  sizes.num_kv_heads = 2;
  sizes.head_dim = 16;
  sizes.tied_embeddings = true;
  return model::llama_like("llama", sizes);
}

// As a file in Q8_0 holds it.
std::unique_ptr<quant::FrozenWeight> in_q8_0(const std::string& module, int64_t out, int64_t in,
                                             at::Device) {
  std::vector<float> values(static_cast<size_t>(out * in));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = 0.05F * normal(random_key(3, module), static_cast<uint64_t>(i));
  constexpr int64_t kBlock = 32, kBlockBytes = 34;
  const at::Tensor blocks = at::empty({out, in / kBlock * kBlockBytes}, at::kByte);
  quant::quantize_gguf_blocks(io::DType::kQ8_0, values.data(), out * in,
                              static_cast<std::byte*>(blocks.mutable_data_ptr()));
  return std::make_unique<quant::GgufWeight>(blocks, io::DType::kQ8_0, in);
}

// `base`: nf4, int8 or q8_0. `group`: null for all on the device.
std::unique_ptr<model::CausalLm> load(const std::string& base,
                                      const std::shared_ptr<Group>& group) {
  quant::QuantizationOptions quantization;
  quantization.method = base == "q8_0" ? "as_stored" : base;
  quantization.block_size = 32;
  model::Placement placement;
  if (group) placement.layers.assign(static_cast<size_t>(kLayers), Home::kRanks);
  const auto source =
      model::made_weights(architecture(), base == "q8_0" ? in_q8_0 : model::PackedMaker());
  return model::load_model(*source, {}, quantization, at::kCPU, at::kFloat, {}, placement,
                           group ? shard_group(group) : nullptr);
}

std::vector<data::Example> rows(int count) {
  std::vector<data::Example> all;
  for (int row = 0; row < count; ++row) {
    data::Example example;
    example.row = row;
    const auto length = 5 + uniform_integer(11, static_cast<uint64_t>(row), 9);
    for (uint64_t i = 0; i < length; ++i) {
      example.tokens.push_back(static_cast<data::TokenId>(
          uniform_integer(random_key(12, static_cast<uint64_t>(row)), i, 61)));
      example.supervised.push_back(i >= 2);
    }
    all.push_back(example);
  }
  return all;
}

// One run of the loop, with an evaluation after each second step.
struct Training {
  Training(const std::string& base, RecomputedLayers recompute, const std::shared_ptr<Group>& group,
           const lora::LoraOptions* options = nullptr)
      : model(load(base, group)),
        adapters(options == nullptr ? test::tiny_adapters(*model, true, 0.1)
                                    : std::make_unique<lora::AdapterSet>(*options, model->parts(),
                                                                         at::kFloat, 3)) {
    optimizing.name = "adamw";
    optimizing.lr = 1e-2;
    std::vector<optim::Parameter> parameters;
    for (const auto& t : adapters->tensors()) parameters.push_back({t.name, t.value, t.gradient});
    optimizer = optim::make_optimizer(optimizing, parameters);
    // 19 rows, one a micro-batch: the last window of an epoch has three.
    loader = std::make_unique<data::Loader>(
        rows(19), data::LoaderOptions{16, false, true, 1, kMicroBatches, 5});
    job.reset(new TrainJob{*model, *adapters, *optimizer, parameters,
                           optim::LrSchedule(optimizing, kSteps), *loader, state});
    job->total_steps = kSteps;
    job->seed = 5;
    job->audit = false;
    job->eval_every = 2;
    state.choices.recompute_layers = recompute;
    job->report = [this](const StepMetrics& m) { losses.push_back(m.loss); };
    job->save = [this] { ++saves; };
    if (group) {
      job->group = group;
      job->micro_batches_a_rank = kMicroBatches / group->size();
    }
    // Five passes: of several ranks the last round is short.
    job->evaluate = [this] {
      const Evaluation evaluation = evaluate_loss(*model, held_out, true, 1, job->group.get());
      losses.push_back(evaluation.loss);
    };
  }

  std::unique_ptr<model::CausalLm> model;
  std::unique_ptr<lora::AdapterSet> adapters;
  optim::OptimizerOptions optimizing;
  std::unique_ptr<optim::Optimizer> optimizer;
  std::unique_ptr<data::Loader> loader;
  data::Examples held_out = rows(5);
  TrainState state;
  std::unique_ptr<TrainJob> job;
  std::vector<double> losses;  // of steps and evaluations
  int saves = 0;
};

// The test owns it.
std::shared_ptr<Group> shared(Group& group) {
  return {&group, [](Group*) {}};
}

void expect_equal(const Training& sharded, const Training& whole) {
  EXPECT_EQ(sharded.losses, whole.losses);
  EXPECT_TRUE(at::equal(sharded.adapters->gradients(), whole.adapters->gradients()));
  EXPECT_TRUE(at::equal(sharded.adapters->values(), whole.adapters->values()));
}

class ShardedBase : public testing::TestWithParam<int> {
 protected:
  // Calls body(group) on each rank.
  static void on_ranks(const std::function<void(Group&)>& body) {
    const int size = GetParam();
    EXPECT_EQ(run_ranks(size, body), std::vector<int>(static_cast<size_t>(size), 0));
  }
};

TEST_P(ShardedBase, LossesGradientsAndAdaptersAreThoseOfTheWholeBase) {
  for (const char* base : {"nf4", "int8", "q8_0"})
    on_ranks([base](Group& group) {
      Training whole(base, false, nullptr);
      EXPECT_EQ(run(*whole.job), Outcome::kFinished);
      ASSERT_EQ(whole.losses.size(), static_cast<size_t>(kSteps + 3));
      ASSERT_GT(whole.adapters->gradients().norm().item<float>(), 0);
      for (const RecomputedLayers recompute :
           {RecomputedLayers(false), RecomputedLayers(true), RecomputedLayers::first(2)}) {
        SCOPED_TRACE(base);
        Training sharded(base, recompute, shared(group));
        EXPECT_EQ(sharded.model->base_hash(), whole.model->base_hash());
        EXPECT_EQ(run(*sharded.job), Outcome::kFinished);
        expect_equal(sharded, whole);
      }
    });
}

TEST_P(ShardedBase, NormsOfDoraAreTakenOfTheWholeRows) {
  on_ranks([](Group& group) {
    lora::LoraOptions options;
    options.rank = 4;
    options.use_dora = true;
    Training whole("nf4", false, nullptr, &options), sharded("nf4", true, shared(group), &options);
    run(*whole.job);
    run(*sharded.job);
    expect_equal(sharded, whole);
  });
}

TEST_P(ShardedBase, ARankKeepsItsPartAndTwoBlocks) {
  on_ranks([](Group& group) {
    int64_t all = 0;
    const auto whole = load("nf4", nullptr);
    for (const lora::LinearGroup* linear : whole->groups())
      for (const lora::LoraLinear& layer : linear->layers()) all += layer.base->bytes();
    Training sharded("nf4", true, shared(group));
    run(*sharded.job);
    // Tensors begin at multiples of 256 bytes: seven matrices of five tensors a block.
    constexpr int64_t kMostBetween = 7 * 5 * 256;
    const quant::Offload& offload = *sharded.model->offload;
    EXPECT_GE(offload.dealt_bytes(), all / group.size());
    EXPECT_LE(offload.dealt_bytes(), (all + kLayers * kMostBetween) / group.size() + kLayers);
    EXPECT_LE(offload.slot_bytes(), 2 * (all / kLayers + kMostBetween + group.size()));
    const std::set<int64_t> near = offload.near();
    for (int64_t block = 0; block < kLayers; ++block) {
      if (near.contains(block)) continue;
      const model::Block& weights = sharded.model->layers[static_cast<size_t>(block)];
      for (const lora::LinearGroup* linear : weights.groups())
        for (const lora::LoraLinear& layer : linear->layers())
          for (const at::Tensor* part : layer.base->parts())
            EXPECT_TRUE(!part->defined() || part->numel() == 0 || part->is_meta()) << layer.name;
    }
  });
}

// Gives one row's loss as what it is not, on the rank that has the row.
class NotANumber final : public Objective {
 public:
  explicit NotANumber(int64_t example) : example_(example) {}
  void begin(const data::StepWindow& window, double loss_scale) override {
    plain_->begin(window, loss_scale);
  }
  MicroBatchLoss loss(model::CausalLm& model, const model::ForwardInput& input,
                      const data::MicroBatch& batch) override {
    MicroBatchLoss loss = plain_->loss(model, input, batch);
    if (batch.examples.front() == example_) loss.value = std::numeric_limits<double>::quiet_NaN();
    return loss;
  }

 private:
  std::unique_ptr<Objective> plain_ = cross_entropy_objective();
  int64_t example_;
};

TEST_P(ShardedBase, ALossThatIsNotFiniteEndsTheRunOfAllRanks) {
  on_ranks([](Group& group) {
    Training sharded("nf4", false, shared(group));
    sharded.job->objective = std::make_unique<NotANumber>(7);
    EXPECT_THROW(run(*sharded.job), DivergenceError);
    // Nor has one of them gone further than the others.
    Training again("nf4", false, shared(group)), whole("nf4", false, nullptr);
    run(*again.job);
    run(*whole.job);
    expect_equal(again, whole);
  });
}

TEST_P(ShardedBase, AStopThatOneRankWishesIsThatOfAll) {
  on_ranks([](Group& group) {
    std::atomic<bool> stop = false;
    const ObeyStop obey(stop);
    Training sharded("nf4", false, shared(group));
    sharded.job->report = [&](const StepMetrics& m) {
      sharded.losses.push_back(m.loss);
      if (m.step == 3 && group.rank() == group.size() - 1) stop = true;
    };
    EXPECT_EQ(run(*sharded.job), Outcome::kInterrupted);
    EXPECT_EQ(sharded.state.step, 3);
    EXPECT_EQ(sharded.saves, 1);
    stop = false;
    sharded.job->stopped.reset();
    EXPECT_EQ(run(*sharded.job), Outcome::kFinished);
    Training whole("nf4", false, nullptr);
    run(*whole.job);
    expect_equal(sharded, whole);
  });
}

TEST_P(ShardedBase, AnEvaluationIsLeftByAllRanksTogether) {
  on_ranks([](Group& group) {
    std::atomic<bool> stop = false;
    const ObeyStop obey(stop);
    Training sharded("nf4", false, shared(group));
    stop = group.rank() == 0;
    EXPECT_THROW(sharded.job->evaluate(), Stopped);
    stop = false;
    sharded.job->evaluate();
    const Evaluation whole = evaluate_loss(*load("nf4", nullptr), sharded.held_out, false, 1);
    const Evaluation base = evaluate_loss(*sharded.model, sharded.held_out, false, 1, &group);
    EXPECT_EQ(base.loss, whole.loss);
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, ShardedBase, testing::Values(2, 4));

TEST(ShardedBaseOfLostRanks, ARankThatIsKilledIsLostToTheOthers) {
  const auto codes = run_ranks(2, [](Group& group) {
    Training sharded("nf4", true, shared(group));
    sharded.job->report = [&](const StepMetrics& m) {
      if (m.step == 2 && group.rank() == 1) kill(getpid(), SIGKILL);
    };
    EXPECT_THROW(run(*sharded.job), distributed::LostRank);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 128 + SIGKILL}));
}

TEST(ShardedBaseOfOneRank, HasNobodyToShareWith) {
  EXPECT_EQ(shard_group(std::make_shared<Group>()), nullptr);
}

}  // namespace
}  // namespace qlora::trainer
