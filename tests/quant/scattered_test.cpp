// Grouped weights whose columns name their groups, of which several rows are decoded side by side
// (quant/grouped/scattered_loops.h). Their small forms: grouped_test.cpp.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/instruction_set.h"
#include "tests/support/made_grouped.h"
#include "tests/support/quant_golden.h"

namespace qlora::quant {
namespace {

using test::defined_rows;
using test::Made;
using test::made;
using test::rows_of;
using test::same_bytes;
using test::Zeros;

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};
constexpr InstructionSet kSets[] = {InstructionSet::kBaseline, InstructionSet::kAvx2,
                                    InstructionSet::kAvx512, InstructionSet::kAvx512Bfloat16};

TEST(ScatteredGroups, AnyRowsAreThatPartOfTheWhole) {
  for (const InstructionSet set : kSets) {
    const AtMost most(set);
    for (const int bits : {1, 2, 3, 4, 8}) {
      const GroupedTensor weight = made({bits, 35, 100, 32, Zeros::kBytes, at::kHalf, true}).weight;
      const at::Tensor whole = rows_of(weight, at::kBFloat16);
      for (int64_t begin = 0; begin < 35; begin += 3)
        for (int64_t end = begin; end <= 35; ++end) {
          at::Tensor part = at::full({end - begin + 1, 100}, 7.0, at::kBFloat16);
          at::Tensor rows = part.narrow(0, 0, end - begin);
          dequantize_grouped(weight, begin, end, rows);
          ASSERT_TRUE(at::equal(rows, whole.narrow(0, begin, end - begin)))
              << bits << " " << begin << " " << end << " " << to_string(set);
          ASSERT_TRUE((part[end - begin] == 7.0).all().item<bool>());
        }
    }
  }
}

// Wider than what is decoded at a time, and with more groups than rows are turned side by side.
TEST(ScatteredGroups, WideRowsHaveTheBitsOfTheDefinition) {
  for (const int bits : {2, 3, 4, 8})
    for (const int64_t in : {512, 1028, 1200}) {
      const Made all = made({bits, 37, in, 20, Zeros::kBytes, at::kFloat, true});
      const at::Tensor expected = defined_rows(all.codes, all.weight);
      for (const InstructionSet set : kSets) {
        const AtMost most(set);
        for (const at::ScalarType type : kTypes)
          ASSERT_TRUE(same_bytes(rows_of(all.weight, type), expected.to(type))) << fmt::format(
              "{} bits, {} columns, as {} on {}", bits, in, c10::toString(type), to_string(set));
      }
    }
}

// Around the bounds of the numbers that products take exactly (are_short()).
TEST(ScatteredGroups, ScalesAndZerosOfEverySizeHaveTheBitsOfTheDefinition) {
  for (const int bits : {2, 3, 4, 8})
    for (const float scale : {0x1.ffep-1f, 0x1.fffp-1f, 0x1.ffep-100f, 0x1.ffep-101f, 0x1p100f,
                              0x1.002p100f, 0.0f, -0.5f})
      for (const float zero : {0.0f, 1.0f, 255.0f, 256.0f, 257.0f, -1.0f}) {
        Made all = made({bits, 16, 64, 32, Zeros::kFloats, at::kFloat, true});
        all.weight.scales.fill_(scale);
        all.weight.zeros.fill_(zero);
        const at::Tensor expected = defined_rows(all.codes, all.weight);
        for (const InstructionSet set : kSets) {
          const AtMost most(set);
          for (const at::ScalarType type : kTypes)
            ASSERT_TRUE(same_bytes(rows_of(all.weight, type), expected.to(type)))
                << fmt::format("{} bits, scale {}, zero {}, as {} on {}", bits, scale, zero,
                               c10::toString(type), to_string(set));
        }
      }
}

}  // namespace
}  // namespace qlora::quant
