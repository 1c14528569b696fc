// Products of few rows with grouped weights, straight from the codes or from rows that are decoded
// a few at a time.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/instruction_set.h"
#include "quant/formats/grouped_weight.h"
#include "tests/support/made_grouped.h"

namespace qlora::quant {
namespace {

using test::Form;
using test::made;
using test::rows_of;
using test::Zeros;

constexpr InstructionSet kSets[] = {InstructionSet::kBaseline, InstructionSet::kAvx2,
                                    InstructionSet::kAvx512};

TEST(GroupedProduct, FewRowsAreMultipliedByTheDecodedRowsOnEveryInstructionSet) {
  for (const InstructionSet set : kSets) {
    const AtMost most(set);
    for (const int bits : {4, 8})
      for (const int64_t group_size : {32, 96, 256})  // the last of 64 columns; one for all
        for (const Zeros zeros : {Zeros::kOne, Zeros::kBytes, Zeros::kFloats})
          for (const int64_t tokens : {1, 3, 8}) {
            SCOPED_TRACE(fmt::format("{} {} bits, groups of {}, zeros {}, {} rows", to_string(set),
                                     bits, group_size, static_cast<int>(zeros), tokens));
            const GroupedTensor weight = made({bits, 13, 256, group_size, zeros}).weight;
            const at::Tensor w = rows_of(weight).to(at::kDouble), x = at::randn({tokens, 256});
            ASSERT_NE(grouped_rows_product(weight, x), nullptr);
            Workspace workspace;
            const at::Tensor found = GroupedWeight(weight, "g").forward(x, workspace);
            const at::Tensor wide = x.to(at::kDouble);
            // n terms in fp32 in any order: (n + 1) u of the sum of magnitudes, u = 2^-24.
            const at::Tensor bound = wide.abs().mm(w.abs().t()) * (257 * std::exp2(-24));
            EXPECT_TRUE(((found - wide.mm(w.t())).abs() <= bound).all().item<bool>());
          }
  }
}

TEST(GroupedProduct, ASumWithOneElementOfXIsThatColumnExactly) {
  for (const InstructionSet set : kSets) {
    const AtMost most(set);
    for (const int bits : {4, 8}) {
      const GroupedTensor weight = made({bits, 7, 96, 64, Zeros::kFloats}).weight;
      const at::Tensor w = rows_of(weight);
      for (int64_t column = 0; column < 96; ++column) {
        at::Tensor x = at::zeros({1, 96}), sums = at::full({7}, NAN);
        x[0][column] = 1;
        grouped_rows_product(weight, x)->sums(0, 7, sums.mutable_data_ptr<float>(), 7);
        ASSERT_TRUE(at::equal(sums, w.select(1, column)))
            << to_string(set) << " " << bits << " bits, column " << column;
      }
    }
  }
}

TEST(GroupedProduct, NoSumDependsOnTheRowsBesideItOrOnOtherRowsOfX) {
  const at::Tensor x = at::randn({7, 192});
  for (const int bits : {4, 8}) {
    const GroupedTensor weight = made({bits, 11, 192, 64}).weight;
    at::Tensor all = at::empty({7, 11});
    grouped_rows_product(weight, x)->sums(0, 11, all.mutable_data_ptr<float>(), 11);
    for (int64_t row = 0; row < 11; ++row)
      for (int64_t t = 0; t < 7; ++t) {
        float sum = NAN;
        grouped_rows_product(weight, x.narrow(0, t, 1))->sums(row, row + 1, &sum, 1);
        EXPECT_EQ(sum, all[t][row].item<float>());
      }
  }
}

TEST(GroupedProduct, FormsWithoutAKernelAreDecodedAFewRowsAtATime) {
  const Form forms[] = {{3, 70, 96, 32},
                        {4, 70, 100, 32},
                        {4, 70, 96, 20},
                        {8, 70, 96, 32, Zeros::kBytes, at::kHalf, true}};
  for (const Form& form : forms) {
    const GroupedTensor weight = made(form).weight;
    const at::Tensor x = at::randn({3, form.in}), w = rows_of(weight).to(at::kDouble);
    EXPECT_EQ(grouped_rows_product(weight, x), nullptr);
    Workspace workspace;
    const at::Tensor found = GroupedWeight(weight, "g").forward(x, workspace);
    const at::Tensor wide = x.to(at::kDouble);
    const at::Tensor bound = wide.abs().mm(w.abs().t()) * (101 * std::exp2(-24));
    EXPECT_TRUE(((found - wide.mm(w.t())).abs() <= bound).all().item<bool>()) << form.bits;
  }
}

}  // namespace
}  // namespace qlora::quant
