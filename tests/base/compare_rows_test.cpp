#include "base/compare_rows.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace qlora {
namespace {

TEST(CompareRows, EachRowIsAskedAboutOnceAndFewAtATime) {
  for (const int64_t rows : {0, 1, 1023, 1024, 1025, 5000}) {
    int64_t next = 0;
    EXPECT_TRUE(all_rows(rows, [&](int64_t first, int64_t count) {
      EXPECT_EQ(first, next);
      EXPECT_GT(count, 0);
      EXPECT_LE(count, 1024);
      next += count;
      return true;
    }));
    EXPECT_EQ(next, rows);
  }
}

TEST(CompareRows, NoRowsAreAskedAboutAfterSomeThatDiffer) {
  int calls = 0;
  EXPECT_FALSE(all_rows(5000, [&](int64_t, int64_t) { return ++calls < 2; }));
  EXPECT_EQ(calls, 2);
}

TEST(CompareRows, TheLastNumberOfManyRowsDecides) {
  const at::Tensor some = at::arange(3000, at::kFloat).remainder(128).view({1500, 2});
  const at::Tensor other = some.clone();
  EXPECT_TRUE(are_equal(some, other.to(at::kBFloat16)));  // whole numbers below 256 are the same
  other[1499][1] += 1;
  EXPECT_FALSE(are_equal(some, other));
}

TEST(CompareRows, EqualNumbersInAnotherShapeAreNotEqual) {
  EXPECT_FALSE(are_equal(at::zeros({4, 2}), at::zeros({2, 4})));
  EXPECT_TRUE(are_equal(at::zeros({0, 2}), at::zeros({0, 2})));
}

}  // namespace
}  // namespace qlora
