#include "quant/read_frozen_weight.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "io/weight_directory.h"
#include "quant/make_frozen_weight.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"
#include "tests/support/torch_writer.h"
#include "tests/support/trained_tensors.h"

namespace qlora::quant {
namespace {

using test::same_bits;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr const char* kModule = "blocks.0.up";
const WeightShape kShape = WeightShape::matrix(6, 64);

at::Tensor some_weight() {
  at::manual_seed(1);
  return at::randn(kShape.sizes()).to(at::kBFloat16);
}

QuantizationOptions by(const std::string& method) {
  QuantizationOptions options;
  options.method = method;
  return options;
}

class ReadFrozenWeight : public testing::Test {
 protected:
  io::TensorFile file_of(const NamedTensors& tensors) const {
    write_tensors(dir / "weights.safetensors", tensors);
    return io::read_weights(dir / "weights.safetensors");
  }
  io::TensorFile file_of(const at::Tensor& weight) const {
    return file_of({{std::string(kModule) + ".weight", weight}});
  }
  std::unique_ptr<FrozenWeight> read(const io::TensorFile& file, const std::string& method) const {
    return read_frozen_weight(file, kModule, kShape, by(method));
  }

  const test::TempDir dir;
};

TEST_F(ReadFrozenWeight, IsWhatTheFactoryMakesOfTheFilesTensor) {
  const at::Tensor weight = some_weight();
  const io::TensorFile file = file_of(weight);
  for (const std::string method : {"nf4", "fp4", "int8", "int8_weight_only", "none", "as_stored"}) {
    const auto expected = make_frozen_weight(weight, by(method), kModule);
    const auto found = read(file, method);
    EXPECT_EQ(found->format(), expected->format());
    EXPECT_TRUE(same_bits(found->state(), expected->state())) << method;
  }
}

TEST_F(ReadFrozenWeight, APytorchBinGivesTheSameAsASafetensorsFile) {
  namespace pk = test::pickle;
  const at::Tensor weight = some_weight();
  const std::string bytes(static_cast<const char*>(weight.const_data_ptr()), weight.nbytes());
  const std::string stored =
      pk::tensor(pk::storage("BFloat16Storage", "0", weight.numel()), 0, {6, 64}, {64, 1});
  const std::string path =
      dir.write("pytorch_model.bin",
                test::torch_file(pk::whole(pk::dict({{"blocks.0.up.weight", stored}})), {bytes}));
  const auto expected = read(file_of(weight), "nf4");
  EXPECT_TRUE(same_bits(read(io::read_weights(path), "nf4")->state(), expected->state()));
}

TEST_F(ReadFrozenWeight, WhatWasSavedQuantizedIsReadBitForBit) {
  for (const std::string method : {"nf4", "fp4", "int8", "none"})
    for (const bool double_quant : {true, false}) {
      QuantizationOptions options = by(method);
      options.double_quant = double_quant;
      const auto weight = make_frozen_weight(some_weight(), options, kModule);
      NamedTensors saved;
      add_frozen_weight(saved, kModule, *weight);
      EXPECT_EQ(saved.front().first, "blocks.0.up.weight");
      const io::TensorFile file = file_of(saved);
      const auto found = read(file, "as_stored");
      EXPECT_EQ(found->format(), weight->format());
      EXPECT_TRUE(same_bits(found->state(), weight->state())) << method;
      EXPECT_TRUE(
          same_bits(read_frozen_weight(file, kModule, kShape, options)->state(), weight->state()))
          << method;
    }
}

TEST_F(ReadFrozenWeight, SkippedModulesStayAsTheFileHasThem) {
  QuantizationOptions options = by("nf4");
  options.skip_modules = {"up"};
  const auto weight = read_frozen_weight(file_of(some_weight()), kModule, kShape, options);
  EXPECT_EQ(weight->format(), "bfloat16");
}

TEST_F(ReadFrozenWeight, ALayerInAnotherFormatIsNotTakenForTheOneAskedFor) {
  NamedTensors saved;
  add_frozen_weight(saved, kModule, *make_frozen_weight(some_weight(), by("nf4"), kModule));
  const io::TensorFile file = file_of(saved);
  EXPECT_THAT([&] { read(file, "int8"); },
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("nf4+dq"), HasSubstr("int8"))));
  QuantizationOptions simple = by("nf4");
  simple.double_quant = false;
  EXPECT_THROW(read_frozen_weight(file, kModule, kShape, simple), ConfigError);
}

TEST_F(ReadFrozenWeight, WrongTensorsAreNamed) {
  const at::Tensor weight = some_weight();
  const auto names = [](const std::string& what) {
    return ThrowsMessage<FormatError>(AllOf(HasSubstr("blocks.0.up.weight"), HasSubstr(what)));
  };
  const io::TensorFile other = file_of({{"blocks.1.up.weight", weight}});
  EXPECT_THAT([&] { read(other, "nf4"); }, names("weights.safetensors"));
  const io::TensorFile turned = file_of(weight.t().contiguous());
  EXPECT_THAT([&] { read(turned, "nf4"); }, names("[64, 6]"));
  const io::TensorFile integers = file_of(at::ones(kShape.sizes(), at::kLong));
  EXPECT_THAT([&] { read(integers, "nf4"); }, names("I64"));
  weight[2][5] = std::numeric_limits<float>::infinity();
  const io::TensorFile damaged = file_of(weight);
  EXPECT_THAT([&] { read(damaged, "nf4"); }, names("[2, 5]"));
}

}  // namespace
}  // namespace qlora::quant
