#include "recipes/models/compute_dtype.h"

#include <gtest/gtest.h>

#include "base/device.h"
#include "base/instruction_set.h"

namespace qlora::recipes {
namespace {

TEST(ComputeDtype, AutoIsWhatTheDeviceMultiplies) {
  for (const auto& [set, expected] : {std::pair{InstructionSet::kBaseline, "float32"},
                                      {InstructionSet::kAvx2, "float32"},
                                      {InstructionSet::kAvx512, "float32"}}) {
    const AtMost most(set);
    EXPECT_EQ(resolved_compute_dtype("auto", c10::kCPU), expected);
  }
  for (const auto& [capability, expected] :
       {std::pair{75, "float16"}, {80, "bfloat16"}, {90, "bfloat16"}, {120, "bfloat16"}}) {
    const AtCapability at(capability);
    EXPECT_EQ(resolved_compute_dtype("auto", c10::kCUDA), expected) << capability;
    EXPECT_EQ(resolved_compute_dtype("float32", c10::kCUDA), "float32");
  }
}

TEST(ComputeDtype, TheSentenceSaysWhyOrWhatAnotherChoiceCosts) {
  const AtCapability turing(75);
  EXPECT_EQ(compute_dtype_sentence("auto", "float16", c10::kCUDA),
            "products are float16, since this GPU has no bfloat16 products");
  EXPECT_EQ(compute_dtype_sentence("bfloat16", "bfloat16", c10::kCUDA),
            "products are bfloat16, which this GPU does not multiply fast; float16 is faster");
  EXPECT_EQ(compute_dtype_sentence("float32", "float32", c10::kCUDA), "products are float32");
}

}  // namespace
}  // namespace qlora::recipes
