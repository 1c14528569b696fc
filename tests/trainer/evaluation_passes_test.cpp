#include "trainer/evaluation_passes.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/ranks.h"
#include "tests/support/tiny_model.h"

namespace qlora::trainer {
namespace {
using distributed::Group;

constexpr int kRows = 7, kRanks = 3;

data::Examples rows() {
  std::vector<data::Example> all;
  for (int row = 0; row < kRows; ++row) {
    data::Example example;
    example.row = row;
    for (int i = 0; i < 4 + row; ++i) {
      example.tokens.push_back((5 * row + 3 * i) % 61);
      example.supervised.push_back(row != 2 && i > 1);  // nothing of one row
    }
    all.push_back(example);
  }
  return all;
}

struct Shown {
  std::vector<int64_t> examples;
  std::vector<int32_t> targets;
  std::vector<float> losses;
  bool operator==(const Shown&) const = default;
};

// One row a pass. `made`: how many batches the ranks asked targets for.
std::vector<Shown> shown(model::CausalLm& model, Group* group, int& made) {
  std::vector<Shown> all;
  EvaluationPasses passes{.tokens_per_pass = 1, .group = group};
  passes.targets = [&made](const data::MicroBatch& batch) {
    ++made;
    return batch.targets;
  };
  for_each_pass(model, rows(), passes,
                [&](const data::MicroBatch& batch, const std::vector<int32_t>& targets,
                    const std::vector<float>& losses) {
                  all.push_back({batch.examples, targets, losses});
                });
  return all;
}

TEST(EvaluationPasses, OfSeveralRanksShowEachTheLossesOfAll) {
  const auto codes = test::run_ranks(kRanks, [](Group& group) {
    const auto model = test::tiny_model();
    int made = 0, made_alone = 0;
    const std::vector<Shown> dealt = shown(*model, &group, made);
    EXPECT_EQ(dealt, shown(*model, nullptr, made_alone));
    EXPECT_EQ(dealt.size(), static_cast<size_t>(kRows));
    EXPECT_EQ(made_alone, kRows);
    // Its own to compute, and all to show.
    const int own = (kRows - group.rank() + kRanks - 1) / kRanks;
    EXPECT_EQ(made, own + kRows);
  });
  EXPECT_EQ(codes, std::vector<int>(kRanks, 0));
}

TEST(EvaluationPasses, OfNoRowsShowNothing) {
  const auto codes = test::run_ranks(2, [](Group& group) {
    const auto model = test::tiny_model();
    for_each_pass(*model, data::Examples(), {.group = &group},
                  [](const data::MicroBatch&, const std::vector<int32_t>&,
                     const std::vector<float>&) { ADD_FAILURE() << "shown"; });
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0}));
}

}  // namespace
}  // namespace qlora::trainer
