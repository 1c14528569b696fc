#include "recipes/exports/gptq_memory.h"

#include <gtest/gtest.h>

#include "tests/support/small_models.h"

namespace qlora::recipes {
namespace {

model::Architecture small(int64_t layers) {
  return test::described({{"model_type", "llama"},
                          {"vocab_size", 100},
                          {"hidden_size", 64},
                          {"intermediate_size", 160},
                          {"num_hidden_layers", layers},
                          {"num_attention_heads", 4},
                          {"num_key_value_heads", 4}});
}

// With a fourth for gaps.
int64_t with_gaps(int64_t bytes) { return bytes + bytes / 4; }

TEST(GptqMemory, IsThatOfOneBlockHoweverManyThereAre) {
  const GptqMemory one = gptq_memory(small(1), {}, 2, 4, 128);
  EXPECT_EQ(one.weights, with_gaps((4 * 64 * 64 + 3 * 64 * 160) * (4 + 1)));
  EXPECT_EQ(one.rounding, with_gaps(64 * 160 * 18));
  EXPECT_EQ(gptq_memory(small(9), {}, 2, 4, 128).total(), one.total());
}

TEST(GptqMemory, HessiansAreOfOneGroupOrOfAllThatAreWatchedTogether) {
  constexpr int64_t kNarrow = 64 * 64 * 4, kWide = 160 * 160 * 4;
  quant::GptqOptions options;
  EXPECT_EQ(gptq_memory(small(1), options, 2, 4, 128).hessians, with_gaps(10 * kWide));
  options.true_sequential = false;
  EXPECT_EQ(gptq_memory(small(1), options, 2, 4, 128).hessians,
            with_gaps(3 * kNarrow + kWide + 9 * kWide));
}

TEST(GptqMemory, APassGrowsWithTheLongestSequence) {
  EXPECT_EQ(gptq_memory(small(1), {}, 2, 4, 256).pass,
            2 * gptq_memory(small(1), {}, 2, 4, 128).pass);
}

}  // namespace
}  // namespace qlora::recipes
