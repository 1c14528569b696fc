#include "lora/autograd_function.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace qlora::lora {
namespace {

// factor * x² (+ offset), and x once more.
struct Scaled : Function<Scaled> {
  static variable_list forward(AutogradContext* ctx, const Variable& x, double factor,
                               const std::optional<Variable>& offset) {
    ctx->save_for_backward({x});
    ctx->saved_data["factor"] = factor;
    ctx->saved_data["has_offset"] = offset.has_value();
    ctx->set_materialize_grads(false);
    const at::Tensor y = x * x * factor;
    return {offset ? y + *offset : y, x.clone()};
  }

  static variable_list backward(AutogradContext* ctx, variable_list dy) {
    at::Tensor dx =
        dy[0] * ctx->get_saved_variables()[0] * 2 * ctx->saved_data["factor"].toDouble();
    if (dy[1].defined()) dx = dx + dy[1];
    const bool has_offset = ctx->saved_data["has_offset"].toBool();
    return {dx, Variable(), has_offset ? dy[0] : Variable()};
  }
};

struct OneGradientShort : Function<OneGradientShort> {
  static Variable forward(AutogradContext*, const Variable& x, const Variable& y) { return x + y; }
  static variable_list backward(AutogradContext*, variable_list dy) { return dy; }
};

struct GradientOfANumber : Function<GradientOfANumber> {
  static Variable forward(AutogradContext*, const Variable& x, double factor) { return x * factor; }
  static variable_list backward(AutogradContext*, variable_list dy) { return {dy[0], dy[0]}; }
};

struct AsksWhatIsWanted : Function<AsksWhatIsWanted> {
  static Variable forward(AutogradContext*, const Variable& x, double, const Variable& y) {
    return x + y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list dy) {
    EXPECT_FALSE(ctx->needs_input_grad(0));
    EXPECT_TRUE(ctx->needs_input_grad(1));
    return {Variable(), Variable(), dy[0]};
  }
};

at::Tensor leaf(double value) { return at::full({2}, value).requires_grad_(true); }
double value_of(const at::Tensor& t) { return t[0].item<double>(); }

TEST(AutogradFunction, GradientsReachTheTensorsAmongTheArguments) {
  const at::Tensor x = leaf(3), offset = leaf(1);
  const auto y = Scaled::apply(x, 2.0, std::optional<Variable>(offset));
  EXPECT_EQ(value_of(y[0]), 19);
  (y[0] * 5 + y[1]).backward(at::ones({2}));
  EXPECT_EQ(value_of(x.grad()), 5 * 2 * 2 * 3 + 1);
  EXPECT_EQ(value_of(offset.grad()), 5);
}

TEST(AutogradFunction, AnAbsentTensorGetsNoGradient) {
  const at::Tensor x = leaf(3);
  const auto y = Scaled::apply(x, 2.0, std::optional<Variable>());
  y[0].backward(at::ones({2}));  // nothing comes back from y[1], which stays undefined
  EXPECT_EQ(value_of(x.grad()), 12);
}

TEST(AutogradFunction, WantedGradientsAreAskedForByPositionAmongTheTensors) {
  const at::Tensor y = leaf(4);
  AsksWhatIsWanted::apply(at::ones({2}), 1.0, y).backward(at::ones({2}));
  EXPECT_EQ(value_of(y.grad()), 1);
}

TEST(AutogradFunction, WithoutAGradientForEachArgumentBackwardFails) {
  const at::Tensor x = leaf(3);
  EXPECT_THROW(OneGradientShort::apply(x, leaf(1)).backward(at::ones({2})), Error);
}

TEST(AutogradFunction, AGradientForANumberFails) {
  EXPECT_THROW(GradientOfANumber::apply(leaf(3), 2.0).backward(at::ones({2})), Error);
}

TEST(AutogradFunction, WithoutATensorThatWantsGradientsThereIsNoNode) {
  EXPECT_FALSE(OneGradientShort::apply(at::ones({2}), at::ones({2})).requires_grad());
}

}  // namespace
}  // namespace qlora::lora
