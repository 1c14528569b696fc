#include "quant/quantization_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/error.h"

namespace qlora::quant {
namespace {

using ::testing::HasSubstr;
using Change = std::function<void(QuantizationOptions&)>;

std::string refusal(const std::string& method, const Change& change) {
  QuantizationOptions options;
  options.method = method;
  change(options);
  try {
    options.validate();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(QuantizationOptions, EveryMethodIsTakenWithItsDefaults) {
  for (const char* method : {"nf4", "fp4", "int8", "int8_weight_only", "none", "as_stored"})
    EXPECT_EQ(refusal(method, [](QuantizationOptions&) {}), "accepted") << method;
  EXPECT_THAT(refusal("nf3", [](QuantizationOptions&) {}), HasSubstr("'nf3'"));
}

TEST(QuantizationOptions, AnUnusableBlockSizeIsNamed) {
  for (const int64_t size : {-64, 0, 1, 16, 48, 100, 8192})
    EXPECT_THAT(refusal("nf4", [size](QuantizationOptions& o) { o.block_size = size; }),
                HasSubstr(fmt::format("quantization.block_size must be a power of two from 32 to "
                                      "4096, found {}",
                                      size)));
  for (const int64_t size : {32, 128, 4096})
    EXPECT_EQ(refusal("fp4", [size](QuantizationOptions& o) { o.block_size = size; }), "accepted");
}

TEST(QuantizationOptions, ABlockSizeOutsideOfFourBitsIsRefused) {
  for (const char* method : {"int8", "int8_weight_only", "none", "as_stored"})
    EXPECT_THAT(refusal(method, [](QuantizationOptions& o) { o.block_size = 128; }),
                HasSubstr(std::string("the method is ") + method));
}

TEST(QuantizationOptions, BlocksInFloat32AreOfInt8Alone) {
  const auto set = [](QuantizationOptions& o) { o.fp32_cpu_offload = true; };
  for (const char* method : {"nf4", "int8_weight_only", "none", "as_stored"})
    EXPECT_THAT(refusal(method, set), HasSubstr("quantization.fp32_cpu_offload is of int8"));
  EXPECT_EQ(refusal("int8", set), "accepted");
}

TEST(QuantizationOptions, AThresholdOutsideOfInt8IsRefused) {
  for (const char* method : {"nf4", "fp4", "none", "as_stored"})
    EXPECT_THAT(refusal(method, [](QuantizationOptions& o) { o.threshold = 5.0; }),
                HasSubstr("quantization.threshold is of int8"));
  EXPECT_EQ(refusal("int8", [](QuantizationOptions& o) { o.threshold = 0.0; }), "accepted");
  for (const double bad : {-1.0, std::nan(""), HUGE_VAL})
    EXPECT_THAT(refusal("int8", [bad](QuantizationOptions& o) { o.threshold = bad; }),
                HasSubstr("quantization.threshold must be a number >= 0"));
}

}  // namespace
}  // namespace qlora::quant
