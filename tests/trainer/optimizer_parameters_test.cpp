#include "trainer/optimizer_parameters.h"

#include <gtest/gtest.h>

#include "tests/support/tiny_model.h"

namespace qlora::trainer {
namespace {

TEST(OptimizerParameters, AreTheTrainedTensorsWithTheRatesAndDecaysOfTheirNames) {
  const auto model = test::tiny_model();
  lora::LoraOptions lora;
  lora.rank = 2;
  lora.plus_lr_ratio = 16;
  const lora::AdapterSet adapters(lora, model->parts(), at::kFloat, 1);
  optim::OptimizerOptions optim;
  optim.weight_decay = 0.25;
  optim.weight_decay_pattern = {{"q_proj", 0.5}};
  const auto parameters = optimizer_parameters(adapters, lora, optim);
  ASSERT_EQ(parameters.size(), adapters.tensors().size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    const optim::Parameter& found = parameters[i];
    EXPECT_EQ(found.name, adapters.tensors()[i].name);
    EXPECT_EQ(found.value.data_ptr(), adapters.tensors()[i].value.data_ptr());
    EXPECT_EQ(found.gradient.data_ptr(), adapters.tensors()[i].gradient.data_ptr());
    const bool is_b = found.name.find("lora_B") != std::string::npos;
    const bool is_query = found.name.find("q_proj") != std::string::npos;
    EXPECT_EQ(found.lr_scale, is_b ? 16 : 1) << found.name;
    EXPECT_EQ(found.weight_decay, is_query ? 0.5 : 0.25) << found.name;
  }
}

// A pattern such as bias is written for any run: one that means nothing here is no error.
TEST(OptimizerParameters, APatternOfDecayThatMatchesNothingIsToldOf) {
  const auto model = test::tiny_model();
  const lora::LoraOptions lora;
  const lora::AdapterSet adapters(lora, model->parts(), at::kFloat, 1);
  optim::OptimizerOptions optim;
  optim.weight_decay_pattern = {{"q_proj", 0.5}, {"zzz", 0.1}, {"q_proj.lora_A", 0.1}};
  testing::internal::CaptureStderr();
  optimizer_parameters(adapters, lora, optim);
  const std::string told = testing::internal::GetCapturedStderr();
  EXPECT_NE(told.find("optim.weight_decay_pattern: 'zzz' matches no trained tensor"),
            std::string::npos)
      << told;
  EXPECT_EQ(told.find("q_proj' matches"), std::string::npos) << told;
  EXPECT_NE(told.find("'q_proj.lora_A' decides nothing"), std::string::npos) << told;
}

}  // namespace
}  // namespace qlora::trainer
