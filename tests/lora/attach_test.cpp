// What AdapterSet asks of a model that someone else made, and what it leaves of one.
#include "lora/attach.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace qlora::lora {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

LoraLinear layer_of(const std::string& name, int64_t out, int64_t in) {
  LoraLinear layer;
  layer.name = name;
  layer.base = std::make_unique<quant::DenseWeight>(at::randn({out, in}));
  return layer;
}

LinearGroup group_of(LoraLinear first, LoraLinear second) {
  std::vector<LoraLinear> layers;
  layers.push_back(std::move(first));
  layers.push_back(std::move(second));
  return LinearGroup(std::move(layers));
}

LoraOptions on(const std::string& target) {
  LoraOptions options;
  options.rank = 2;
  options.targets = {target};
  return options;
}

TEST(AttachedAdapters, ALayerWithoutItsWeightIsNamed) {
  LinearGroup group = group_of(layer_of("m.a", 6, 8), layer_of("m.b", 4, 8));
  group.layers()[1].base.reset();
  EXPECT_THAT([&] { AdapterSet(on("a"), {&group}, at::kFloat, 1); },
              ThrowsMessage<Error>(HasSubstr("m.b")));
  EXPECT_EQ(group.layers()[0].adapter, nullptr);
  EXPECT_FALSE(group.has_adapters());
}

TEST(AttachedAdapters, LayersOfOneGroupMustHaveOneInput) {
  LinearGroup group = group_of(layer_of("m.a", 6, 8), layer_of("m.b", 4, 9));
  EXPECT_THAT([&] { AdapterSet(on("a"), {&group}, at::kFloat, 1); },
              ThrowsMessage<Error>(HasSubstr("m.b has 9")));
}

TEST(AttachedAdapters, AModelWithoutLayersIsRefused) {
  const std::vector<LinearGroup*> none;
  EXPECT_THROW(AdapterSet(on("all-linear"), none, at::kFloat, 1), Error);
}

TEST(AttachedAdapters, ASecondSetTakesThePlaceOfTheFirst) {
  LinearGroup group = group_of(layer_of("m.a", 6, 8), layer_of("m.b", 4, 8));
  const AdapterSet first(on("a"), {&group}, at::kFloat, 1);
  const AdapterSet second(on("b"), {&group}, at::kFloat, 1);
  EXPECT_EQ(group.layers()[0].adapter, nullptr);
  ASSERT_NE(group.layers()[1].adapter, nullptr);
  EXPECT_EQ(second.num_modules(), 1);
  EXPECT_EQ(second.num_parameters(), 2 * (4 + 8));
  EXPECT_EQ(group.stacked_a().compute.data_ptr(), second.values().data_ptr());
}

TEST(AttachedAdapters, EmptySlotsLeaveTheFrozenBase) {
  LinearGroup group = group_of(layer_of("m.a", 6, 8), layer_of("m.b", 4, 8));
  quant::Workspace workspace;
  ForwardContext context;
  context.workspace = &workspace;
  const at::Tensor x = at::randn({3, 8});
  const std::vector<at::Tensor> before = group.forward(x, context);
  AdapterSet adapters(on("all-linear"), {&group}, at::kFloat, 1);
  const at::NoGradGuard no_grad;
  at::Tensor values = adapters.values();
  values.fill_(0.5f);
  adapters.publish();
  EXPECT_FALSE(at::allclose(group.forward(x, context)[0], before[0]));
  empty_slots({&group});
  EXPECT_TRUE(at::equal(group.forward(x, context)[0], before[0]));
  EXPECT_FALSE(group.anchor().defined());
  EXPECT_EQ(adapters.values()[0].item<float>(), 0.5f);
}

TEST(AttachedAdapters, ACallThatAGroupCannotServeSaysWhy) {
  LinearGroup group = group_of(layer_of("m.a", 6, 8), layer_of("m.b", 4, 8));
  const at::Tensor x = at::randn({3, 8});
  ForwardContext context;
  EXPECT_THAT([&] { group.forward(x, context); }, ThrowsMessage<Error>(HasSubstr("workspace")));
  quant::Workspace workspace;
  context.workspace = &workspace;
  EXPECT_THAT(
      [&] {
        group.forward(at::randn({3, 7}), context);
      },
      ThrowsMessage<Error>(HasSubstr("[tokens, 8], found [3, 7]")));
  group.layers()[1].base.reset();
  EXPECT_THAT([&] { group.forward(x, context); }, ThrowsMessage<Error>(HasSubstr("m.b")));
}

}  // namespace
}  // namespace qlora::lora
