#include "model/attention_routes.h"

#include <gtest/gtest.h>

#include <string>

#include "base/device.h"
#include "base/instruction_set.h"

namespace qlora::model {
namespace {

TEST(AttentionRoutes, AreThoseThatTheShapeTypeAndDeviceAllow) {
  AttentionShape shape = causal_attention(4, 2, 64);
  const auto name = [&](at::ScalarType type, at::DeviceType device) {
    return std::string(attention_route(shape, type, device).name);
  };
  EXPECT_EQ(name(at::kFloat, at::kCPU), "fp32");
  EXPECT_EQ(name(at::kHalf, at::kCPU), "fp32");
  EXPECT_EQ(name(at::kHalf, at::kCUDA), "ATen's FlashAttention");
  EXPECT_EQ(name(at::kFloat, at::kCUDA), "composed");
  shape.window = 9;
  shape.sinks = true;
  EXPECT_EQ(name(at::kBFloat16, at::kCUDA), "ATen's FlashAttention");
  shape.softcap = 50;
  EXPECT_EQ(name(at::kBFloat16, at::kCUDA), "composed");
  const AtMost avx2(InstructionSet::kAvx2);
  EXPECT_EQ(name(at::kBFloat16, at::kCPU), "fp32");
  shape = causal_attention(4, 2, 64);
  shape.relative_bias = true;
  EXPECT_EQ(name(at::kBFloat16, at::kCPU), "fp32");
  EXPECT_EQ(name(at::kBFloat16, at::kCUDA), "composed");
  shape = causal_attention(4, 2, 64);
  shape.causal = false;
  shape.cross = true;
  EXPECT_EQ(name(at::kBFloat16, at::kCPU), "fp32");
  EXPECT_EQ(name(at::kDouble, at::kCPU), "composed");
  EXPECT_EQ(name(at::kBFloat16, at::kCUDA), "composed");
  shape.window = 9;  // no family's
  EXPECT_EQ(name(at::kFloat, at::kCPU), "composed");
}

TEST(AttentionRoutes, GpusBeforeAmpereHaveNoFlashAttention) {
  const AttentionShape shape = causal_attention(4, 2, 64);
  for (const auto& [capability, name] :
       {std::pair{75, "composed"}, {80, "ATen's FlashAttention"}, {120, "ATen's FlashAttention"}}) {
    const AtCapability at(capability);
    EXPECT_STREQ(attention_route(shape, at::kHalf, at::kCUDA).name, name) << capability;
  }
}

}  // namespace
}  // namespace qlora::model
