#include "base/upload.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "base/device.h"

namespace qlora {
namespace {

TEST(Upload, ToTheCpuGivesTheTensorItself) {
  const at::Tensor ids = at::arange(5);
  EXPECT_TRUE(upload(ids, at::kCPU).is_same(ids));
}

// Each lies in pinned memory for a moment only, which the next ones take.
TEST(UploadGpu, EveryTensorArrivesWhileTheGpuIsStillBusy) {
  if (!cuda_available()) GTEST_SKIP() << "no GPU";
  const at::Device device("cuda:0");
  const at::Tensor busy = at::ones({2048, 2048}, at::TensorOptions().device(device));
  std::vector<at::Tensor> uploaded;
  for (int64_t i = 0; i < 300; ++i) {
    if (i % 10 == 0) busy.copy_(at::matmul(busy, busy).clamp_max_(1));
    uploaded.push_back(upload(at::full({1 + i % 7 * 100}, i, at::kLong), device));
  }
  for (int64_t i = 0; i < 300; ++i)
    EXPECT_TRUE(at::equal(uploaded[static_cast<size_t>(i)].cpu(),
                          at::full({1 + i % 7 * 100}, i, at::kLong)))
        << i;
}

TEST(UploadGpu, ATensorWithoutElementsArrivesToo) {
  if (!cuda_available()) GTEST_SKIP() << "no GPU";
  const at::Tensor none = upload(at::empty({0}, at::kLong), at::Device("cuda:0"));
  EXPECT_TRUE(none.is_cuda());
  EXPECT_EQ(none.numel(), 0);
}

}  // namespace
}  // namespace qlora
