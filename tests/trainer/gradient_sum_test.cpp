#include "trainer/gradient_sum.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "tests/support/ranks.h"

namespace qlora::trainer {
namespace {

constexpr int64_t kNumbers = 97;

// Gradients whose sum depends on the order of additions.
at::Tensor gradients_of(int64_t micro_batch) {
  at::Tensor gradients = at::empty({kNumbers});
  auto* values = gradients.mutable_data_ptr<float>();
  for (int64_t i = 0; i < kNumbers; ++i)
    values[i] = std::sin(1.7F * static_cast<float>(i) + 31.0F * static_cast<float>(micro_batch));
  return gradients;
}

at::Tensor sum_of(int64_t begin, int64_t end) {
  const at::Tensor buffer = at::full({kNumbers}, 5.0F);
  GradientSum sum;
  sum.begin(buffer, end - begin);
  for (int64_t i = begin; i < end; ++i) {
    sum.begin_micro_batch();
    buffer.add_(gradients_of(i));
  }
  sum.finish();
  return buffer;
}

TEST(GradientSum, AddsAsABalancedTree) {
  const auto g = [](int64_t i) { return gradients_of(i); };
  EXPECT_TRUE(at::equal(sum_of(0, 0), at::zeros({kNumbers})));
  EXPECT_TRUE(at::equal(sum_of(0, 1), g(0)));
  EXPECT_TRUE(at::equal(sum_of(0, 3), (g(0) + g(1)) + g(2)));
  EXPECT_TRUE(at::equal(sum_of(0, 7), ((g(0) + g(1)) + (g(2) + g(3))) + ((g(4) + g(5)) + g(6))));
  EXPECT_FALSE(at::equal(sum_of(0, 4), g(0) + g(1) + g(2) + g(3))) << "the test shows nothing";
}

TEST(GradientSum, AWindowLeavesNothingInTheNextEvenWhenItWasAbandoned) {
  const at::Tensor buffer = at::empty({kNumbers});
  GradientSum sum;
  for (const auto& [begin, end, finished] : std::vector<std::tuple<int64_t, int64_t, bool>>{
           {0, 7, true}, {7, 10, false}, {10, 15, true}}) {
    sum.begin(buffer, end - begin);
    for (int64_t i = begin; i < end; ++i) {
      sum.begin_micro_batch();
      buffer.add_(gradients_of(i));
    }
    if (!finished) continue;
    sum.finish();
    EXPECT_TRUE(at::equal(buffer, sum_of(begin, end))) << begin;
  }
}

TEST(GradientSum, RanksWithBlocksOfAPowerOfTwoHaveTheBitsOfOne) {
  for (const int ranks : {2, 4, 8}) {
    const auto codes = test::run_ranks(ranks, [ranks](distributed::Group& group) {
      for (int64_t a_rank = 1; a_rank * ranks <= 16; a_rank *= 2)
        for (int64_t window = 1; window <= a_rank * ranks; ++window) {
          const int64_t begin = std::min(group.rank() * a_rank, window);
          const at::Tensor sum = sum_of(begin, std::min(begin + a_rank, window));
          group.sum(sum);
          EXPECT_TRUE(at::equal(sum, sum_of(0, window)))
              << window << " micro-batches, " << a_rank << " a rank of " << ranks;
        }
    });
    EXPECT_EQ(codes, std::vector<int>(static_cast<size_t>(ranks), 0));
  }
}

TEST(GradientSum, HoldsAsManyCopiesAsItSays) {
  for (const auto& [micro_batches, copies] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 0}, {2, 1}, {3, 2}, {4, 2}, {5, 3}, {8, 3}})
    EXPECT_EQ(GradientSum::most_copies(micro_batches), copies) << micro_batches;
}

}  // namespace
}  // namespace qlora::trainer
