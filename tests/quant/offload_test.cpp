#include "quant/offload/offload.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "io/mapped_file.h"
#include "io/spill_file.h"
#include "quant/make_frozen_weight.h"
#include "quant/offload/offloaded_weight.h"
#include "tests/support/temp_dir.h"

namespace qlora::quant {
namespace {
using ::testing::ElementsAre;
using ::testing::IsEmpty;

QuantizationOptions method(const std::string& name, bool double_quant = true) {
  QuantizationOptions options;
  options.method = name;
  options.double_quant = double_quant;
  return options;
}

at::Tensor made(int64_t out, int64_t in, double scale = 0.1) {
  return (at::arange(out * in, at::kFloat).remainder(37) - 18).mul(scale / 18).view({out, in});
}

// Weights of as many blocks, one each, elsewhere and as they are.
struct Blocks {
  explicit Blocks(Home home, int64_t count, const QuantizationOptions& options = method("nf4"))
      : offload(
            std::make_shared<Offload>(at::kCPU, std::make_shared<io::SpillFile>(dir.path(), 0))) {
    for (int64_t b = 0; b < count; ++b) {
      const at::Tensor weight = made(64, 96, 0.1 + 0.01 * static_cast<double>(b));
      plain.push_back(make_frozen_weight(weight, options, "w"));
      away.push_back(std::make_unique<OffloadedWeight>(make_frozen_weight(weight, options, "w"),
                                                       offload, b, home));
    }
  }
  void expect_equal(size_t block) {
    at::Tensor a = at::empty({64, 96}), b = at::empty({64, 96});
    plain[block]->dequantize_rows(0, 0, 64, a);
    away[block]->dequantize_rows(0, 0, 64, b);
    EXPECT_TRUE(at::equal(a, b)) << block;
  }

  test::TempDir dir;
  std::shared_ptr<Offload> offload;
  std::vector<std::unique_ptr<FrozenWeight>> plain;
  std::vector<std::unique_ptr<OffloadedWeight>> away;
};

TEST(Offload, ForwardAndBackTheNextBlockIsNearBeforeItIsUsed) {
  for (const Home home : {Home::kHost, Home::kDisk}) {
    Blocks blocks(home, 4);
    EXPECT_THAT(blocks.offload->near(), IsEmpty());
    const auto use = [&](int64_t block) {
      blocks.offload->use(block);
      return blocks.offload->near();
    };
    EXPECT_THAT(use(0), ElementsAre(0, 1));
    EXPECT_THAT(use(1), ElementsAre(1, 2));
    EXPECT_THAT(use(2), ElementsAre(2, 3));
    EXPECT_THAT(use(3), ElementsAre(2, 3));  // the turn
    EXPECT_THAT(use(2), ElementsAre(1, 2));
    EXPECT_THAT(use(1), ElementsAre(0, 1));
    EXPECT_THAT(use(0), ElementsAre(0, 1));
    EXPECT_THAT(use(1), ElementsAre(1, 2));  // the next pass
    use(2);
    use(3);
    EXPECT_THAT(use(0), ElementsAre(0, 1));  // token by token
  }
}

TEST(Offload, EveryFormatGivesTheSameRowsAndProductsWhereverItLies) {
  Workspace workspace;
  for (const Home home : {Home::kHost, Home::kDisk})
    for (const QuantizationOptions& options :
         {method("nf4"), method("nf4", false), method("fp4"), method("int8"),
          method("int8_weight_only"), method("none")}) {
      Blocks blocks(home, 3, options);
      for (const size_t b : {0u, 1u, 2u, 1u, 0u, 2u}) {
        SCOPED_TRACE(options.method);
        blocks.expect_equal(b);
        for (const int64_t tokens : {1, 20}) {
          const at::Tensor x = made(tokens, 96, 1.0), dy = made(tokens, 64, 1.0);
          EXPECT_TRUE(at::equal(blocks.away[b]->forward(x, workspace),
                                blocks.plain[b]->forward(x, workspace)));
          at::Tensor dx = at::empty({tokens, 96}), expected = at::empty({tokens, 96});
          blocks.away[b]->input_gradient_into(dy, dx, false, workspace);
          blocks.plain[b]->input_gradient_into(dy, expected, false, workspace);
          EXPECT_TRUE(at::equal(dx, expected));
        }
      }
    }
}

TEST(Offload, WhatAWeightIsCalledAndItsStateAreThoseOfItsFormat) {
  for (const Home home : {Home::kHost, Home::kDisk}) {
    Blocks blocks(home, 2);
    for (const size_t b : {0u, 1u}) {
      blocks.expect_equal(b);  // from a slot, then from home
      const NamedTensors away = blocks.away[b]->state(), plain = blocks.plain[b]->state();
      ASSERT_EQ(away.size(), plain.size());
      for (size_t i = 0; i < away.size(); ++i) {
        EXPECT_EQ(away[i].first, plain[i].first);
        EXPECT_TRUE(at::equal(away[i].second, plain[i].second)) << away[i].first;
      }
      EXPECT_EQ(blocks.away[b]->format(), blocks.plain[b]->format());
      EXPECT_EQ(blocks.away[b]->bytes(), blocks.plain[b]->bytes());
    }
  }
}

// A thread that uses another block would take this one's bytes away.
TEST(Offload, WeightsThatAreFetchedServeOneThreadAtATime) {
  const Blocks blocks(Home::kHost, 1);
  EXPECT_TRUE(serves_many_threads(*blocks.plain[0]));
  EXPECT_FALSE(serves_many_threads(*blocks.away[0]));
}

TEST(Offload, AReplacedWeightIsForgottenAndTheOthersAreFetchedAsBefore) {
  for (const Home home : {Home::kHost, Home::kDisk}) {
    Blocks blocks(home, 3);
    blocks.expect_equal(0);
    blocks.away[1].reset();
    blocks.expect_equal(2);
    EXPECT_THAT(blocks.offload->near(), ElementsAre(0, 2));
    blocks.expect_equal(0);
  }
}

TEST(Offload, AWeightInThePlaceOfAnotherLiesWhereThatDid) {
  for (const Home home : {Home::kHost, Home::kDisk}) {
    Blocks blocks(home, 2);
    blocks.expect_equal(0);
    const at::Tensor weight = made(64, 96, 0.7);
    const auto other = placed_as(*blocks.away[0], std::make_unique<DenseWeight>(weight.clone()));
    blocks.away[0].reset();
    EXPECT_TRUE(at::equal(other->stored_rows(at::kFloat), weight));
    EXPECT_THAT(blocks.offload->near(), ElementsAre(0, 1));
    blocks.expect_equal(1);
    const auto stays = placed_as(*blocks.plain[1], std::make_unique<DenseWeight>(weight));
    EXPECT_EQ(stays->state()[0].second.const_data_ptr(), weight.const_data_ptr());
  }
}

TEST(Offload, BlocksOfOtherSizesShareTheSlots) {
  const auto offload = std::make_shared<Offload>(at::kCPU, nullptr);
  std::vector<std::unique_ptr<OffloadedWeight>> away;
  std::vector<at::Tensor> weights;
  for (int64_t b = 0; b < 4; ++b) {
    weights.push_back(made(16 << b, 32));
    away.push_back(std::make_unique<OffloadedWeight>(std::make_unique<DenseWeight>(weights.back()),
                                                     offload, b, Home::kHost));
    // A larger one comes when slots are in use.
    EXPECT_TRUE(at::equal(away.back()->stored_rows(at::kFloat, 0), weights.back()));
  }
  for (const size_t b : {3u, 0u, 2u, 1u})
    EXPECT_TRUE(at::equal(away[b]->stored_rows(at::kFloat, 0), weights[b])) << b;
}

TEST(Offload, WhatTheModelsFileHoldsIsNotWritten) {
  const test::TempDir dir;
  const at::Tensor original = made(64, 64);
  const auto mapped = io::MappedFile::open(dir.write(
      "weights", {static_cast<const char*>(original.const_data_ptr()), original.nbytes()}));
  io::TensorView view;
  view.bytes = mapped->bytes();
  view.owner = mapped;
  const auto find = [&](const std::string& name) { return name == "weight" ? &view : nullptr; };
  const auto file = std::make_shared<io::SpillFile>(dir.path(), 0);
  const auto offload = std::make_shared<Offload>(at::kCPU, file);
  const auto place = [&](const at::Tensor& weight, int64_t block) {
    return std::make_unique<OffloadedWeight>(std::make_unique<DenseWeight>(weight.clone()), offload,
                                             block, Home::kDisk, find);
  };
  const auto same = place(original, 0);
  EXPECT_EQ(offload->written_bytes(), 0);
  EXPECT_EQ(same->state()[0].second.const_data_ptr(), mapped->bytes().data());
  EXPECT_TRUE(at::equal(same->stored_rows(at::kFloat, 0), original));
  const auto other = place(original + 1, 1);
  EXPECT_EQ(offload->written_bytes(), static_cast<int64_t>(original.nbytes()));
  EXPECT_TRUE(at::equal(other->stored_rows(at::kFloat, 0), original + 1));
}

}  // namespace
}  // namespace qlora::quant
