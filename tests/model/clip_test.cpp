#include "model/clip.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace qlora::model {
namespace {

TEST(Clip, GradientsEndWhereItClips) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor all = (at::randn({4, 30}) * 3).to(type).requires_grad_(true);
    const at::Tensor y = clip(all.narrow(1, 5, 20), 2.0);
    EXPECT_TRUE(y.is_contiguous() && y.abs().max().item<double>() == 2.0);
    y.backward(at::ones_like(y));
    at::Tensor expected = at::zeros_like(all);
    expected.narrow(1, 5, 20).copy_(all.detach().narrow(1, 5, 20).abs() <= 2.0);
    EXPECT_TRUE(at::equal(all.grad(), expected));
  }
}

}  // namespace
}  // namespace qlora::model
