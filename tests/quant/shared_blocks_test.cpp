// Blocks that ranks keep together, by one rank whose gathers arrive when they are waited for; with
// several: tests/trainer/sharded_base_test.cpp.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/error.h"
#include "quant/make_frozen_weight.h"
#include "quant/offload/offloaded_weight.h"

namespace qlora::quant {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// One rank of as many; the others have zeros.
class LateGathers final : public ShardGroup {
 public:
  explicit LateGathers(int rank = 0, int size = 1) : rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::function<void()> gather(const at::Tensor& shard, const at::Tensor& whole) override {
    EXPECT_EQ(whole.numel(), size_ * shard.numel());
    ++started;
    whole.fill_(0xEE);
    return [this, shard, whole] {
      whole.zero_();
      whole.narrow(0, rank_ * shard.numel(), shard.numel()).copy_(shard);
      ++arrived;
    };
  }

  int started = 0, arrived = 0;

 private:
  int rank_, size_;
};

at::Tensor made(int64_t out, int64_t in, double scale) {
  return (at::arange(out * in, at::kFloat).remainder(37) - 18).mul(scale / 18).view({out, in});
}

QuantizationOptions method(const std::string& name) {
  QuantizationOptions options;
  options.method = name;
  return options;
}

// Two weights in each of some blocks, kept together and as they are.
struct Blocks {
  explicit Blocks(int64_t count, const std::string& format = "nf4",
                  std::shared_ptr<LateGathers> group = std::make_shared<LateGathers>())
      : ranks(std::move(group)), offload(std::make_shared<Offload>(at::kCPU, nullptr, ranks)) {
    for (int64_t b = 0; b < count; ++b) {
      for (const int64_t out : {64, 24}) {
        const at::Tensor weight = made(out, 96, 0.1 + 0.01 * static_cast<double>(b));
        plain.push_back(make_frozen_weight(weight, method(format), "w"));
        shared.push_back(std::make_unique<OffloadedWeight>(
            make_frozen_weight(weight, method(format), "w"), offload, b, Home::kRanks));
      }
      offload->deal(b);
    }
  }
  static at::Tensor rows(const FrozenWeight& weight) {
    at::Tensor out = at::empty({weight.out_features(), weight.in_features()});
    weight.dequantize_rows(0, 0, weight.out_features(), out);
    return out;
  }
  void expect_equal(size_t weight) const {
    EXPECT_TRUE(at::equal(rows(*shared[weight]), rows(*plain[weight]))) << weight;
  }

  std::shared_ptr<LateGathers> ranks;
  std::shared_ptr<Offload> offload;
  std::vector<std::unique_ptr<FrozenWeight>> plain;
  std::vector<std::unique_ptr<OffloadedWeight>> shared;
};

TEST(SharedBlocks, TheNextBlockIsOnItsWayWhileOneIsUsed) {
  Blocks blocks(4);
  EXPECT_EQ(blocks.ranks->started, 0);
  blocks.expect_equal(0);
  blocks.expect_equal(1);  // of the same block
  EXPECT_EQ(blocks.ranks->started, 2);
  EXPECT_EQ(blocks.ranks->arrived, 1);
  for (const size_t weight : {2u, 4u, 6u, 7u}) blocks.expect_equal(weight);
  EXPECT_EQ(blocks.ranks->started, 4);
  EXPECT_EQ(blocks.ranks->arrived, 4);
  for (const size_t weight : {5u, 3u, 1u}) blocks.expect_equal(weight);  // and back
  EXPECT_EQ(blocks.ranks->started, 6);
  EXPECT_THAT(blocks.offload->near(), ElementsAre(0, 1));
}

TEST(SharedBlocks, AGatherThatNobodyUsedIsWaitedForBeforeItsSlotIsFilledAnew) {
  Blocks blocks(5);
  blocks.expect_equal(0);
  EXPECT_EQ(blocks.ranks->started - blocks.ranks->arrived, 1);  // of block 1
  blocks.expect_equal(8);
  blocks.expect_equal(2);
  blocks.expect_equal(6);
  blocks.expect_equal(0);
  EXPECT_LE(blocks.ranks->started - blocks.ranks->arrived, 1);
}

TEST(SharedBlocks, EveryFormatGivesTheSameRowsProductsAndState) {
  Workspace workspace;
  for (const char* format : {"nf4", "fp4", "int8", "int8_weight_only", "none"}) {
    SCOPED_TRACE(format);
    Blocks blocks(3, format);
    for (const size_t w : {0u, 2u, 5u, 3u, 1u, 4u}) {
      FrozenWeight &away = *blocks.shared[w], &here = *blocks.plain[w];
      EXPECT_EQ(away.bytes(), here.bytes());
      EXPECT_EQ(away.format(), here.format());
      blocks.expect_equal(w);
      for (const int64_t tokens : {1, 20}) {
        const at::Tensor x = made(tokens, 96, 1.0), dy = made(tokens, here.out_features(), 1.0);
        EXPECT_TRUE(at::equal(away.forward(x, workspace), here.forward(x, workspace)));
        at::Tensor dx = at::empty({tokens, 96}), expected = at::empty({tokens, 96});
        away.input_gradient_into(dy, dx, false, workspace);
        here.input_gradient_into(dy, expected, false, workspace);
        EXPECT_TRUE(at::equal(dx, expected));
      }
      const NamedTensors state = away.state(), expected = here.state();
      blocks.expect_equal((w + 3) % 6);  // others come into the slots
      blocks.expect_equal((w + 5) % 6);
      ASSERT_EQ(state.size(), expected.size());
      for (size_t i = 0; i < state.size(); ++i) {
        EXPECT_EQ(state[i].first, expected[i].first);
        EXPECT_TRUE(at::equal(state[i].second, expected[i].second)) << state[i].first;
      }
    }
  }
}

TEST(SharedBlocks, ARankKeepsItsPartOfTheBytesAndTwoSlots) {
  const Blocks whole(3);
  for (const int size : {2, 3, 4}) {
    int64_t dealt = 0;
    for (int rank = 0; rank < size; ++rank) {
      const Blocks part(3, "nf4", std::make_shared<LateGathers>(rank, size));
      EXPECT_LE(part.offload->dealt_bytes(), whole.offload->dealt_bytes() / size + 3);
      EXPECT_EQ(part.offload->slot_bytes(), 0);
      dealt += part.offload->dealt_bytes();
      part.offload->use(0);
      part.offload->use(1);
      EXPECT_LE(part.offload->slot_bytes(), 2 * (whole.offload->dealt_bytes() / 3 + size));
    }
    EXPECT_GE(dealt, whole.offload->dealt_bytes());
  }
}

TEST(SharedBlocks, UntilItIsDealtAWeightIsThereAsAWhole) {
  const auto ranks = std::make_shared<LateGathers>(1, 2);
  const auto offload = std::make_shared<Offload>(at::kCPU, nullptr, ranks);
  const at::Tensor weight = made(64, 96, 1.0);
  const OffloadedWeight shared(std::make_unique<DenseWeight>(weight), offload, 0, Home::kRanks);
  EXPECT_TRUE(at::equal(shared.state()[0].second, weight));
  EXPECT_EQ(ranks->started, 0);
  EXPECT_FALSE(offload->is_dealt(0));
  offload->deal(0);
  EXPECT_TRUE(offload->is_dealt(0));
  EXPECT_FALSE(at::equal(shared.state()[0].second, weight));  // the other rank has zeros
  EXPECT_EQ(ranks->started, 1);
}

TEST(SharedBlocks, WhatWasDealtStaysAsItIs) {
  Blocks blocks(2);
  EXPECT_THAT(
      [&] {
        OffloadedWeight(make_frozen_weight(made(64, 96, 1.0), method("nf4"), "w"), blocks.offload,
                        1, Home::kRanks);
      },
      ThrowsMessage<Error>(HasSubstr("dealt to the ranks already")));
  EXPECT_THAT([&] { placed_as(*blocks.shared[0], std::make_unique<DenseWeight>(made(64, 96, 1))); },
              ThrowsMessage<Error>(HasSubstr("stays as it is")));
  const auto alone = std::make_shared<Offload>(at::kCPU, nullptr);
  EXPECT_THAT(
      [&] {
        OffloadedWeight(std::make_unique<DenseWeight>(made(64, 96, 1.0)), alone, 0, Home::kRanks);
      },
      ThrowsMessage<Error>(HasSubstr("no ranks")));
}

}  // namespace
}  // namespace qlora::quant
