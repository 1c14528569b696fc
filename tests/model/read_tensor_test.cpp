#include "model/read_tensor.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "base/error.h"

namespace qlora::model {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

io::TensorView view_of(const std::vector<float>& values) {
  io::TensorView view;
  view.name = "model.norm.weight";
  view.file = "model.safetensors";
  view.shape = {static_cast<int64_t>(values.size())};
  view.bytes = std::as_bytes(std::span(values));
  return view;
}

void expect_refused(const std::vector<float>& values, at::ScalarType dtype,
                    const std::string& what) {
  EXPECT_THAT([&] { read_tensor(view_of(values), {static_cast<int64_t>(values.size())}, dtype); },
              ThrowsMessage<FormatError>(AllOf(HasSubstr("model.safetensors"),
                                               HasSubstr("model.norm.weight"), HasSubstr(what))));
}

TEST(ReadTensor, ANumberThatIsNoneIsFoundWhereverItStands) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(),
                  kInfinity = std::numeric_limits<float>::infinity();
  expect_refused({1, 2, kNaN}, at::kFloat, "(element 2)");
  expect_refused({-kInfinity, 2, 3}, at::kBFloat16, "NaN or infinity (element 0)");
  std::vector<float> many((1 << 20) + 7, 0.5F);  // beyond the first piece
  many[(1 << 20) + 3] = kInfinity;
  expect_refused(many, at::kBFloat16, "(element 1048579)");
}

TEST(ReadTensor, AValueThatFloat16CannotHoldIsRefusedForFloat16Alone) {
  const std::vector<float> values = {1, -70000};
  expect_refused(values, at::kHalf, "model.dtype: bfloat16");
  EXPECT_EQ(read_tensor(view_of(values), {2}, at::kFloat)[1].item<float>(), -70000);
  EXPECT_EQ(read_tensor(view_of({65504}), {1}, at::kHalf)[0].item<float>(), 65504);
}

TEST(ReadTensor, AFiniteValueWhoseSquareLeavesFloat32IsNoWeight) {
  expect_refused({0, 2e38F}, at::kFloat, "2e+38");
}

// Rounded once to float32 and from there as torch rounds a double to bfloat16.
TEST(ReadTensor, DoublesAreRounded) {
  const std::vector<double> values = {0.1, -1.0 - 1e-9, 3.0, 1e300};
  io::TensorView view = view_of({});
  view.dtype = io::DType::kF64;
  view.shape = {3};
  view.bytes = std::as_bytes(std::span(values).first(3));
  const at::Tensor read = read_tensor(view, {3}, at::kFloat);
  EXPECT_EQ(read[0].item<float>(), 0.1F);
  EXPECT_EQ(read[1].item<float>(), -1.0F);
  EXPECT_TRUE(at::equal(read_tensor(view, {3}, at::kBFloat16), read.to(at::kBFloat16)));
  view.shape = {4};
  view.bytes = std::as_bytes(std::span(values));
  EXPECT_THAT([&] { read_tensor(view, {4}, at::kFloat); },
              ThrowsMessage<FormatError>(HasSubstr("NaN or infinity (element 3)")));
}

TEST(ReadTensor, RowsAreThoseOfTheWholeTensor) {
  std::vector<float> values(5 * 6);
  std::iota(values.begin(), values.end(), 0.0F);
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{5, 6}, std::vector<int64_t>{5, 2, 3}}) {
    io::TensorView view = view_of(values);
    view.shape = shape;
    const at::Tensor whole = read_tensor(view, shape, at::kFloat);
    EXPECT_TRUE(at::equal(read_rows(view, 1, 3, at::kFloat), whole.narrow(0, 1, 3)));
    EXPECT_TRUE(
        at::equal(read_rows(view, 4, 1, at::kBFloat16), whole.narrow(0, 4, 1).to(at::kBFloat16)));
  }
}

TEST(ReadTensor, AnElementOfRowsIsNamedByItsPlaceInTheTensor) {
  std::vector<float> values(12, 0.5F);
  values[9] = std::numeric_limits<float>::infinity();
  io::TensorView view = view_of(values);
  view.shape = {4, 3};
  EXPECT_EQ(read_rows(view, 0, 3, at::kFloat).sum().item<float>(), 4.5F);  // the rows before it
  EXPECT_THAT([&] { read_rows(view, 2, 2, at::kFloat); },
              ThrowsMessage<FormatError>(HasSubstr("(element 9)")));
}

}  // namespace
}  // namespace qlora::model
