// Products of few rows with grouped weights, straight from the codes or from rows that are decoded
// a few at a time.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

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

// Groups of 64 columns of 192 in order, for which there are kernels of these widths, and such as
// columns name.
std::vector<Form> forms(int64_t rows) {
  std::vector<Form> all;
  for (const int bits : {4, 8})
    all.push_back({bits, rows, 192, 64, Zeros::kFloats, at::kHalf, false});
  for (const int bits : {2, 3, 4, 8})
    all.push_back({bits, rows, 192, 64, Zeros::kBytes, at::kHalf, true});
  return all;
}

std::string name_of(const Form& form) {
  return fmt::format("{} bits, {} columns, groups of {}, zeros {}, named {}", form.bits, form.in,
                     form.group_size, static_cast<int>(form.zeros), form.scattered);
}

// n terms in fp32 in any order: (n + 1) u of the sum of magnitudes, u = 2^-24.
void expect_product_of_decoded_rows(const GroupedTensor& weight, int64_t tokens) {
  const at::Tensor w = rows_of(weight).to(at::kDouble), x = at::randn({tokens, weight.in});
  Workspace workspace;
  const at::Tensor found = GroupedWeight(weight, "g").forward(x, workspace);
  const at::Tensor wide = x.to(at::kDouble);
  const at::Tensor bound =
      wide.abs().mm(w.abs().t()) * (static_cast<double>(weight.in + 1) * std::exp2(-24));
  EXPECT_TRUE(((found - wide.mm(w.t())).abs() <= bound).all().item<bool>());
}

TEST(GroupedProduct, FewRowsAreMultipliedByTheDecodedRowsOnEveryInstructionSet) {
  for (const InstructionSet set : kSets) {
    const AtMost most(set);
    for (const int bits : {4, 8})
      for (const int64_t group_size : {32, 96, 256})  // the last of 64 columns; one for all
        for (const Zeros zeros : {Zeros::kOne, Zeros::kBytes, Zeros::kFloats})
          for (const int64_t tokens : {1, 3, 8}) {
            const Form form{bits, 13, 256, group_size, zeros};
            SCOPED_TRACE(fmt::format("{}, {}, {} rows", name_of(form), to_string(set), tokens));
            const GroupedTensor weight = made(form).weight;
            ASSERT_NE(grouped_rows_product(weight, at::randn({tokens, 256})), nullptr);
            expect_product_of_decoded_rows(weight, tokens);
          }
  }
}

TEST(GroupedProduct, FewRowsAreMultipliedByTheDecodedRowsOfNamedGroupsOnEveryInstructionSet) {
  for (const InstructionSet set : kSets) {
    const AtMost most(set);
    for (const int bits : {2, 3, 4, 8})
      for (const int64_t in : {32, 160, 1184})
        for (const Zeros zeros : {Zeros::kOne, Zeros::kBytes})
          for (const int64_t tokens : {1, 3, 8}) {
            const Form form{bits, 37, in, 20, zeros, at::kFloat, true};
            SCOPED_TRACE(fmt::format("{}, {}, {} rows", name_of(form), to_string(set), tokens));
            const GroupedTensor weight = made(form).weight;
            ASSERT_NE(grouped_rows_product(weight, at::randn({tokens, in})), nullptr);
            expect_product_of_decoded_rows(weight, tokens);
          }
  }
}

TEST(GroupedProduct, ASumWithOneElementOfXIsThatColumnExactly) {
  for (const InstructionSet set : kSets) {
    const AtMost most(set);
    for (const Form& form : forms(7)) {
      const GroupedTensor weight = made(form).weight;
      const at::Tensor w = rows_of(weight);
      for (int64_t column = 0; column < form.in; ++column) {
        at::Tensor x = at::zeros({1, form.in}), sums = at::full({7}, NAN);
        x[0][column] = 1;
        grouped_rows_product(weight, x)->sums(0, 7, sums.mutable_data_ptr<float>(), 7);
        ASSERT_TRUE(at::equal(sums, w.select(1, column)))
            << to_string(set) << ", " << name_of(form) << ", column " << column;
      }
    }
  }
}

TEST(GroupedProduct, NoSumDependsOnTheRowsBesideItOrOnOtherRowsOfX) {
  const at::Tensor x = at::randn({7, 192});
  for (const Form& form : forms(21)) {
    const GroupedTensor weight = made(form).weight;
    at::Tensor all = at::empty({7, 21});
    grouped_rows_product(weight, x)->sums(0, 21, all.mutable_data_ptr<float>(), 21);
    for (int64_t row = 0; row < 21; ++row)
      for (int64_t t = 0; t < 7; ++t) {
        float sum = NAN;
        grouped_rows_product(weight, x.narrow(0, t, 1))->sums(row, row + 1, &sum, 1);
        EXPECT_EQ(sum, all[t][row].item<float>()) << name_of(form);
      }
  }
}

TEST(GroupedProduct, FormsWithoutAKernelAreDecodedAFewRowsAtATime) {
  const Form forms[] = {{3, 70, 96, 32},
                        {4, 70, 100, 32},
                        {4, 70, 96, 20},
                        {1, 70, 96, 32, Zeros::kBytes, at::kHalf, true},
                        {8, 70, 100, 32, Zeros::kBytes, at::kHalf, true},
                        {8, 70, 96, 32, Zeros::kFloats, at::kHalf, true}};
  for (const Form& form : forms) {
    SCOPED_TRACE(name_of(form));
    const GroupedTensor weight = made(form).weight;
    EXPECT_EQ(grouped_rows_product(weight, at::randn({3, form.in})), nullptr);
    expect_product_of_decoded_rows(weight, 3);
  }
}

TEST(GroupedProduct, AZeroThatIsNotWholeNeedsDecodedRows) {
  GroupedTensor weight = made({4, 20, 96, 32, Zeros::kOne, at::kHalf, true}).weight;
  EXPECT_NE(grouped_rows_product(weight, at::randn({2, 96})), nullptr);
  weight.zero = 7.5f;
  EXPECT_EQ(grouped_rows_product(weight, at::randn({2, 96})), nullptr);
  expect_product_of_decoded_rows(weight, 2);
}

}  // namespace
}  // namespace qlora::quant
