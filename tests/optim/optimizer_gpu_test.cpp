#include <gtest/gtest.h>

#include <cmath>

#include "base/device.h"
#include "optim/grad_clip.h"
#include "optim/optimizer.h"
#include "tests/support/trained_tensors.h"

namespace qlora::optim {
namespace {

using test::same_bits;
using test::TrainedTensors;

class OptimizerGpu : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no GPU";
  }
};
INSTANTIATE_TEST_SUITE_P(Names, OptimizerGpu,
                         testing::Values("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit",
                                         "lion", "lion_8bit", "ademamix", "paged_ademamix_8bit",
                                         "sgd_8bit", "rmsprop", "adagrad_8bit"),
                         [](const auto& info) { return std::string(info.param); });

const std::vector<int64_t> kSizes = {5000, 100, 4096, 700000, 4095, 8192};

OptimizerOptions named(const std::string& name) {
  OptimizerOptions options;
  options.name = name;
  options.weight_decay = 0.1;
  return options;
}

void train(Optimizer& optimizer, TrainedTensors& tensors, uint32_t first, uint32_t last) {
  for (uint32_t step = first; step <= last; ++step) {
    tensors.draw_gradients(step);
    optimizer.step(1e-2, 0.9);
  }
}

TEST_P(OptimizerGpu, FollowsTheCpu) {
  TrainedTensors cpu(kSizes), gpu(kSizes, at::Device("cuda:0"));
  const auto on_cpu = make_optimizer(named(GetParam()), cpu.parameters);
  const auto on_gpu = make_optimizer(named(GetParam()), gpu.parameters);
  train(*on_cpu, cpu, 1, 1);
  train(*on_gpu, gpu, 1, 1);
  // One step: decay before or after the update differs by lr^2 wd, the rest is rounding. (Later
  // 8-bit steps differ by the encoders: the CPU's bins lose moments below 1.5e-5 of their block's
  // largest.)
  EXPECT_LE((cpu.values - gpu.values.cpu()).abs().max().item<double>(), 1e-2 * 1e-2 * 0.1 + 3e-7);
}

TEST_P(OptimizerGpu, RepeatsItsBitsAndResumes) {
  TrainedTensors whole(kSizes, at::Device("cuda:0")), resumed(kSizes, at::Device("cuda:0"));
  const auto unbroken = make_optimizer(named(GetParam()), whole.parameters);
  train(*unbroken, whole, 1, 6);
  NamedTensors saved;
  {
    const auto first = make_optimizer(named(GetParam()), resumed.parameters);
    train(*first, resumed, 1, 3);
    saved = first->state();
  }
  const auto second = make_optimizer(named(GetParam()), resumed.parameters);
  second->load_state(saved, 3);
  train(*second, resumed, 4, 6);
  EXPECT_TRUE(same_bits(whole.values, resumed.values));
  EXPECT_TRUE(same_bits(unbroken->state(), second->state()));
}

TEST_P(OptimizerGpu, AFullArenaGivesTheBitsOfASmallOne) {
  OptimizerOptions options = named(GetParam());
  if (!options.name.starts_with("paged")) options.name = "paged_" + options.name;
  TrainedTensors small(kSizes, at::Device("cuda:0")), large(kSizes, at::Device("cuda:0"));
  options.paged_resident_bytes = 2 * 262144 * 12;
  const auto streaming = make_optimizer(options, small.parameters);
  options.paged_resident_bytes = int64_t{1} << 30;
  const auto resident = make_optimizer(options, large.parameters);
  train(*streaming, small, 1, 5);
  train(*resident, large, 1, 5);
  EXPECT_EQ(resident->host_bytes(), 0);
  EXPECT_TRUE(same_bits(small.values, large.values));
  EXPECT_TRUE(same_bits(streaming->state(), resident->state()));
}

TEST(GradClipGpu, AgreesWithTheCpuAndRepeatsItsBits) {
  if (!cuda_available()) GTEST_SKIP() << "no GPU";
  const at::Tensor flat = TrainedTensors({1000003}).values, on_gpu = flat.to(at::Device("cuda:0"));
  const double expected = gradient_norm(flat, 0).norm, norm = gradient_norm(on_gpu, 0).norm;
  EXPECT_NEAR(norm, expected, 1e-10 * expected);
  EXPECT_EQ(gradient_norm(on_gpu, 0).norm, norm);
  on_gpu[77] = std::nanf("");
  EXPECT_FALSE(gradient_norm(on_gpu, 1.0).finite());
}

}  // namespace
}  // namespace qlora::optim
