// Layers run one by one, and what their linear layers read, as calibration wants them.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/norm.h"
#include "tests/support/tiny_model.h"

namespace qlora::model {
namespace {

TEST(LayerByLayer, StepsGiveWhatThePassGives) {
  const auto model = test::tiny_model();
  const ForwardInput input = test::tiny_input({5, 9});
  at::Tensor residual = model->first_residual(input);
  EXPECT_EQ(residual.sizes(), at::IntArrayRef({14, 32}));
  std::vector<Block> blocks = std::move(model->layers);
  model->layers.clear();
  model->layers.resize(2);
  for (size_t layer = 0; layer < 2; ++layer) {
    model->layers[layer] = std::move(blocks[layer]);
    residual = model->residual_behind(static_cast<int64_t>(layer), residual, input);
    blocks[layer] = std::move(model->layers[layer]);
    model->layers[layer] = Block();
  }
  model->layers = std::move(blocks);
  at::NoGradGuard no_grad;
  const at::Tensor normed =
      add_norm(residual, at::Tensor(), model->final_norm,
               model->architecture().decoder.final_norm.rule, at::kFloat, false)
          .normed;
  EXPECT_TRUE(at::allclose(normed, model->hidden(input), 1e-5, 1e-6));
}

TEST(LayerByLayer, AnObserverSeesWhatEachGroupReadsInTurn) {
  const auto model = test::tiny_model();
  ForwardInput input = test::tiny_input({6});
  std::vector<std::string> seen;
  const lora::InputObserver observer = [&](const lora::LinearGroup& group, const at::Tensor& x) {
    EXPECT_EQ(x.sizes(), at::IntArrayRef({6, group.layers().front().in_features()}));
    seen.push_back(group.layers().front().name);
  };
  input.observer = &observer;
  const at::Tensor watched = model->residual_behind(1, model->first_residual(input), input);
  const std::string layer = "model.layers.1.";
  EXPECT_EQ(seen, (std::vector<std::string>{layer + "self_attn.q_proj", layer + "self_attn.o_proj",
                                            layer + "mlp.gate_proj", layer + "mlp.down_proj"}));
  input.observer = nullptr;
  EXPECT_TRUE(at::equal(watched, model->residual_behind(1, model->first_residual(input), input)));
}

TEST(LayerByLayer, AnObserverMayLeaveThePass) {
  struct Enough {};
  const auto model = test::tiny_model();
  ForwardInput input = test::tiny_input({6});
  int groups = 0;
  const lora::InputObserver observer = [&](const lora::LinearGroup&, const at::Tensor&) {
    if (++groups == 2) throw Enough();
  };
  input.observer = &observer;
  const at::Tensor residual = model->first_residual(input), before = residual.clone();
  EXPECT_THROW(model->residual_behind(0, residual, input), Enough);
  EXPECT_EQ(groups, 2);
  EXPECT_TRUE(at::equal(residual, before));
}

}  // namespace
}  // namespace qlora::model
