// Weights of codes with a scale and a zero a group, against the definition as a plain loop. That
// the codes of files become these is checked where the files are read.
#include "quant/grouped/grouped.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/device.h"
#include "base/error.h"
#include "base/instruction_set.h"
#include "quant/formats/grouped_weight.h"
#include "tests/support/made_grouped.h"
#include "tests/support/quant_golden.h"

namespace qlora::quant {
namespace {

using test::defined_rows;
using test::Form;
using test::Made;
using test::made;
using test::rows_of;
using test::same_bytes;
using test::Zeros;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kWidths[] = {1, 2, 3, 4, 8};
constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};
constexpr InstructionSet kSets[] = {InstructionSet::kBaseline, InstructionSet::kAvx2,
                                    InstructionSet::kAvx512, InstructionSet::kAvx512Bfloat16};

std::vector<int> bytes_of(const at::Tensor& tensor) {
  const auto* first = tensor.const_data_ptr<uint8_t>();
  return {first, first + tensor.numel()};
}

at::Tensor codes_of(const std::vector<int64_t>& numbers) {
  return at::tensor(numbers).to(at::kByte).view({1, -1});
}

template <typename Body>
std::string message_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(PackedCodes, AreALittleEndianStreamOfBitsInWholeWords) {
  EXPECT_THAT(bytes_of(pack_codes(codes_of({1, 0, 1}), 1)), ElementsAre(5, 0, 0, 0));
  EXPECT_THAT(bytes_of(pack_codes(codes_of({3, 0, 1, 2, 1}), 2)), ElementsAre(0x93, 1, 0, 0));
  EXPECT_THAT(bytes_of(pack_codes(codes_of({1, 2, 15}), 4)), ElementsAre(0x21, 0x0f, 0, 0));
  EXPECT_THAT(bytes_of(pack_codes(codes_of({255, 1, 2, 3, 4}), 8)),
              ElementsAre(255, 1, 2, 3, 4, 0, 0, 0));
  // In octal digits from the right: 0o76543210 = 0xfac688.
  EXPECT_THAT(bytes_of(pack_codes(codes_of({0, 1, 2, 3, 4, 5, 6, 7}), 3)),
              ElementsAre(0x88, 0xc6, 0xfa, 0));
  // Code 10 spans two words: bits 30 to 32.
  EXPECT_THAT(bytes_of(pack_codes(codes_of({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}), 3)),
              ElementsAre(0, 0, 0, 0xc0, 1, 0, 0, 0));
}

TEST(PackedCodes, ComeBackInEveryWidthAndLength) {
  for (const int bits : kWidths)
    for (int64_t in = 1; in < 70; ++in) {
      const at::Tensor codes = at::randint(0, int64_t{1} << bits, {5, in}, at::kByte);
      const at::Tensor packed = pack_codes(codes, bits);
      ASSERT_EQ(packed.size(1), grouped_row_bytes(bits, in));
      ASSERT_TRUE(at::equal(unpack_codes(packed, bits, in), codes)) << bits << " " << in;
      // What pads a row are zeros.
      const int64_t room = packed.size(1) * 8 / bits;
      ASSERT_EQ(unpack_codes(packed, bits, room).narrow(1, in, room - in).sum().item<int64_t>(), 0)
          << bits << " " << in;
    }
}

TEST(PackedCodes, TakeWordsOfFourBytes) {
  EXPECT_EQ(grouped_row_bytes(4, 8), 4);
  EXPECT_EQ(grouped_row_bytes(4, 9), 8);
  EXPECT_EQ(grouped_row_bytes(3, 32), 12);
  EXPECT_EQ(grouped_row_bytes(3, 172), 68);
  EXPECT_EQ(grouped_row_bytes(1, 1), 4);
}

TEST(PackedCodes, WhatDoesNotFitIsRefused) {
  EXPECT_THAT(message_of([] {
                pack_codes(codes_of({1, 16}), 4);
              }),
              HasSubstr("must be below 16, got 16"));
  EXPECT_THAT(message_of([] { pack_codes(codes_of({1}), 5); }), HasSubstr("got 5"));
  EXPECT_THROW(pack_codes(codes_of({1}).to(at::kInt), 4), Error);
  EXPECT_THROW(pack_codes(codes_of({1})[0], 4), Error);
  EXPECT_THROW(unpack_codes(at::zeros({2, 4}, at::kByte), 4, 9), Error);
  EXPECT_THROW(unpack_codes(at::zeros({2, 4}, at::kByte), 7, 4), Error);
}

TEST(Grouped, ARowWorkedOutByHand) {
  GroupedTensor weight;
  weight.in = 5;
  weight.group_size = 3;
  weight.codes = pack_codes(codes_of({0, 7, 15, 8, 1}), 4);
  weight.scales = at::tensor({0.5f, 2.0f}).to(at::kHalf).view({1, 2});
  weight.zeros = at::tensor({8, 9}).to(at::kByte).view({1, 2});
  EXPECT_TRUE(
      at::equal(rows_of(weight), at::tensor({-4.0f, -0.5f, 3.5f, -2.0f, -16.0f}).view({1, 5})));
  weight.group_of = at::tensor({1, 0, 0, 1, 0}, at::kInt);
  EXPECT_TRUE(
      at::equal(rows_of(weight), at::tensor({-18.0f, -0.5f, 3.5f, -2.0f, -3.5f}).view({1, 5})));
  weight.zeros = at::Tensor();
  weight.zero = 7.5f;
  weight.group_of = at::Tensor();
  EXPECT_TRUE(
      at::equal(rows_of(weight), at::tensor({-3.75f, -0.25f, 3.75f, 1.0f, -13.0f}).view({1, 5})));
}

// The type of the scales changes from form to form.
TEST(Grouped, EveryFormHasTheBitsOfTheDefinition) {
  uint64_t seed = 0;
  for (const int bits : kWidths)
    for (const int64_t in : {1, 7, 32, 96, 172, 321})
      for (const int64_t group_size : {int64_t{20}, int64_t{32}, int64_t{64}, in})
        for (const Zeros zeros : {Zeros::kOne, Zeros::kBytes, Zeros::kFloats})
          for (const bool scattered : {false, true}) {
            const at::ScalarType stored = kTypes[++seed % 3];
            const int64_t rows =
                scattered ? 21 : 3;  // of named groups, several are decoded at once
            Made all = made({bits, rows, in, group_size, zeros, stored, scattered}, seed);
            const at::Tensor expected = defined_rows(all.codes, all.weight);
            if (scattered) all.weight.group_size = 0;  // says nothing
            check_grouped(all.weight, "w");
            for (const InstructionSet set : kSets) {
              const AtMost most(set);
              for (const at::ScalarType type : kTypes)
                ASSERT_TRUE(same_bytes(rows_of(all.weight, type), expected.to(type)))
                    << fmt::format(
                           "{} bits, {} columns, groups of {}, zeros {}, scales {}, "
                           "scattered {}, as {} on {}",
                           bits, in, group_size, static_cast<int>(zeros), c10::toString(stored),
                           scattered, c10::toString(type), to_string(set));
            }
          }
}

TEST(Grouped, ProductsAreRoundedOnceToNearestEven) {
  // Scales over the whole range of fp32, subnormal results and overflow of fp16 included.
  for (const int bits : {2, 4, 8}) {
    Made all = made({bits, 400, 64, 64, Zeros::kBytes, at::kFloat});
    all.weight.scales = at::exp2(at::linspace(-140, 110, 400)).view({400, 1});
    const at::Tensor expected = defined_rows(all.codes, all.weight);
    for (const InstructionSet set : kSets) {
      const AtMost most(set);
      for (const at::ScalarType type : kTypes)
        EXPECT_TRUE(same_bytes(rows_of(all.weight, type), expected.to(type)))
            << bits << " " << c10::toString(type) << " " << to_string(set);
    }
  }
}

// Some decoders take only scales and zeros that are ordinary.
TEST(Grouped, NumbersOfEveryKindAreDecodedAsDefined) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  for (const float scale :
       {0.01f, -0.01f, 0.0f, 0x1p-126f, 0x1p-127f, 1e-45f, 3e38f, infinity, nan})
    for (const float zero :
         {3.0f, -3.0f, 0.5f, 1e-30f, 0x1p22f, 0x1p22f + 1, 0x1p30f, infinity, nan})
      for (const Form form : {Form{8, 2, 70, 35, Zeros::kFloats, at::kFloat},
                              Form{8, 19, 70, 35, Zeros::kFloats, at::kFloat, true},
                              Form{3, 19, 70, 35, Zeros::kFloats, at::kFloat, true}}) {
        Made all = made(form);
        all.weight.scales[form.rows - 1][1] = scale;
        all.weight.zeros.round_();
        all.weight.zeros[form.rows - 1][1] = zero;
        const at::Tensor expected = defined_rows(all.codes, all.weight);
        for (const InstructionSet set : kSets) {
          const AtMost most(set);
          for (const at::ScalarType type : kTypes)
            ASSERT_TRUE(at::allclose(rows_of(all.weight, type), expected.to(type), 0, 0, true))
                << fmt::format("{} bits, {} rows, scale {}, zero {}, as {} on {}", form.bits,
                               form.rows, scale, zero, c10::toString(type), to_string(set));
        }
      }
}

TEST(Grouped, AnyRowsAreThatPartOfTheWhole) {
  for (const int bits : kWidths) {
    const GroupedTensor weight = made({bits, 11, 100, 32}).weight;
    const at::Tensor whole = rows_of(weight, at::kBFloat16);
    for (int64_t begin = 0; begin <= 11; ++begin)
      for (int64_t end = begin; end <= 11; ++end) {
        at::Tensor part = at::empty({end - begin, 100}, at::kBFloat16);
        dequantize_grouped(weight, begin, end, part);
        ASSERT_TRUE(at::equal(part, whole.narrow(0, begin, end - begin)));
      }
    at::Tensor part = at::empty({2, 100});
    EXPECT_THROW(dequantize_grouped(weight, 10, 12, part), Error);
    EXPECT_THROW(dequantize_grouped(weight, -1, 1, part), Error);
    EXPECT_THROW(dequantize_grouped(weight, 0, 3, part), Error);
  }
}

TEST(Grouped, NoBitDependsOnTheThreadCount) {
  const GroupedTensor weight = made({4, 500, 1024, 128}).weight;
  const at::Tensor codes = unpack_codes(weight.codes, 4, weight.in);
  const int before = omp_get_max_threads();
  set_num_threads(1);
  const at::Tensor one = rows_of(weight, at::kHalf);
  set_num_threads(3);
  const at::Tensor three = rows_of(weight, at::kHalf);
  EXPECT_TRUE(same_bytes(pack_codes(codes, 4), weight.codes));
  EXPECT_TRUE(same_bytes(unpack_codes(weight.codes, 4, weight.in), codes));
  set_num_threads(before);
  EXPECT_TRUE(same_bytes(one, three));
}

TEST(Grouped, PartsThatDoNotFitAreNamed) {
  const GroupedTensor good = made({4, 6, 96, 32, Zeros::kBytes, at::kHalf, true}).weight;
  check_grouped(good, "layers.3.q_proj");
  const auto complaint = [&](const auto& spoil) {
    GroupedTensor bad = good;
    spoil(bad);
    return message_of([&] { check_grouped(bad, "layers.3.q_proj"); });
  };
  EXPECT_THAT(complaint([](GroupedTensor& w) { w.bits = 5; }),
              AllOf(HasSubstr("layers.3.q_proj"), HasSubstr("got 5")));
  EXPECT_THAT(complaint([](GroupedTensor& w) { w.codes = w.codes.narrow(1, 0, 44).contiguous(); }),
              HasSubstr("layers.3.q_proj: codes must be uint8 [rows, 48 bytes"));
  EXPECT_THAT(complaint([](GroupedTensor& w) { w.codes = w.codes.to(at::kInt); }),
              HasSubstr("codes must be"));
  EXPECT_THAT(complaint([](GroupedTensor& w) { w.scales = w.scales.narrow(0, 0, 5); }),
              HasSubstr("scales must be [6 rows, 3 groups]"));
  EXPECT_THAT(complaint([](GroupedTensor& w) { w.scales = w.scales.to(at::kDouble); }),
              HasSubstr("scales must be float16, bfloat16 or float32, got Double"));
  EXPECT_THAT(complaint([](GroupedTensor& w) { w.scales = w.scales.t().contiguous().t(); }),
              HasSubstr("scales must be contiguous"));
  EXPECT_THAT(complaint([](GroupedTensor& w) { w.scales = at::Tensor(); }), HasSubstr("scales"));
  EXPECT_THAT(complaint([](GroupedTensor& w) { w.zeros = w.zeros.narrow(1, 0, 2).contiguous(); }),
              HasSubstr("zeros must be [6 rows, 3 groups]"));
  EXPECT_THAT(complaint([](GroupedTensor& w) { w.zeros = w.zeros.to(at::kInt); }),
              HasSubstr("zeros must be float16, bfloat16, float32 or uint8, got Int"));
  EXPECT_THAT(complaint([](GroupedTensor& w) { w.group_of = w.group_of.narrow(0, 0, 95); }),
              HasSubstr("group_of must be int32 [96 columns]"));
  EXPECT_THAT(complaint([](GroupedTensor& w) { w.group_of = w.group_of.to(at::kLong); }),
              HasSubstr("group_of must be int32"));
  for (const int outside : {-1, 3})
    EXPECT_THAT(complaint([&](GroupedTensor& w) {
                  w.group_of = w.group_of.clone();
                  w.group_of[77] = outside;
                }),
                HasSubstr("group_of must name groups in [0, 3)"));
  EXPECT_THAT(complaint([](GroupedTensor& w) {
                w.group_of = at::Tensor();
                w.group_size = 48;
              }),
              HasSubstr("scales must be [6 rows, 2 groups]"));
  EXPECT_THAT(complaint([](GroupedTensor& w) {
                w.group_of = at::Tensor();
                w.group_size = 0;
              }),
              HasSubstr("a group must have columns"));
}

TEST(GroupedWeight, KeepsWhatItWasGiven) {
  const GroupedTensor tensor = made({4, 6, 96, 32, Zeros::kBytes, at::kHalf, true}).weight;
  const GroupedWeight weight(tensor, "gptq, 4 bit");
  EXPECT_EQ(weight.out_features(), 6);
  EXPECT_EQ(weight.in_features(), 96);
  EXPECT_EQ(weight.num_experts(), 1);
  EXPECT_EQ(weight.format(), "gptq, 4 bit");
  EXPECT_EQ(weight.bytes(), 6 * 48 + 6 * 3 * 2 + 6 * 3 + 96 * 4);
  const NamedTensors state = weight.state();
  ASSERT_EQ(state.size(), 4u);
  EXPECT_EQ(state[0].first, "codes");
  EXPECT_TRUE(at::equal(state[0].second, tensor.codes));
  EXPECT_EQ(state[1].first, "scales");
  EXPECT_TRUE(at::equal(state[1].second, tensor.scales));
  EXPECT_EQ(state[2].first, "zeros");
  EXPECT_TRUE(at::equal(state[2].second, tensor.zeros));
  EXPECT_EQ(state[3].first, "group_of");
  EXPECT_TRUE(at::equal(state[3].second, tensor.group_of));
  const GroupedWeight symmetric(made({4, 6, 96, 32, Zeros::kOne}).weight, "g");
  ASSERT_EQ(symmetric.state().size(), 3u);
  EXPECT_EQ(symmetric.state()[2].second.item<float>(), 8.0f);
}

TEST(GroupedWeight, ExpertsAndRowsThatAreNotThereAreRefused) {
  const GroupedWeight weight(made({4, 6, 96, 32}).weight, "g");
  at::Tensor out = at::empty({2, 96});
  EXPECT_THROW(weight.dequantize_rows(1, 0, 2, out), Error);
  EXPECT_THROW(weight.dequantize_rows(0, 5, 7, out), Error);
  GroupedTensor bad = made({4, 6, 96, 32, Zeros::kBytes, at::kHalf, true}).weight;
  bad.group_of[0] = 3;
  EXPECT_THAT(message_of([&] { GroupedWeight(bad, "gptq, 4 bit"); }),
              HasSubstr("gptq, 4 bit: group_of"));
}

class GroupedGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no usable GPU";
  }
};

GroupedTensor on_gpu(GroupedTensor weight) {
  weight.codes = weight.codes.cuda();
  weight.scales = weight.scales.cuda();
  if (weight.zeros.defined()) weight.zeros = weight.zeros.cuda();
  if (weight.group_of.defined()) weight.group_of = weight.group_of.cuda();
  return weight;
}

TEST_F(GroupedGpu, RowsHaveTheBitsOfTheCpu) {
  uint64_t seed = 0;
  for (const int bits : kWidths)
    for (const int64_t in : {1, 7, 96, 172, 321, 5000})
      for (const int64_t group_size : {int64_t{20}, int64_t{64}, in})
        for (const Zeros zeros : {Zeros::kOne, Zeros::kBytes, Zeros::kFloats})
          for (const bool scattered : {false, true}) {
            const Form form{bits, 9, in, group_size, zeros, kTypes[++seed % 3], scattered};
            const GroupedTensor host = made(form, seed).weight, device = on_gpu(host);
            check_grouped(device, "w");
            for (const at::ScalarType type : kTypes) {
              ASSERT_TRUE(same_bytes(rows_of(device, type).cpu(), rows_of(host, type)))
                  << bits << " " << in << " " << group_size << " " << scattered;
              at::Tensor part = at::empty({4, in}, device.codes.options().dtype(type));
              dequantize_grouped(device, 3, 7, part);
              ASSERT_TRUE(same_bytes(part.cpu(), rows_of(host, type).narrow(0, 3, 4).contiguous()));
            }
          }
}

TEST_F(GroupedGpu, RowsGoWhereverTheOutputLies) {
  const GroupedTensor host = made({4, 4, 32, 32}).weight, device = on_gpu(host);
  at::Tensor room = at::zeros({129}, at::TensorOptions().dtype(at::kFloat).device(at::kCUDA));
  at::Tensor shifted = room.narrow(0, 1, 128).view({4, 32});  // four bytes off a 16-byte border
  dequantize_grouped(device, 0, 4, shifted);
  EXPECT_TRUE(at::equal(shifted.cpu(), rows_of(host)));
  EXPECT_EQ(room[0].item<float>(), 0.0f);
}

TEST_F(GroupedGpu, AGroupThatIsNotThereIsRefused) {
  GroupedTensor weight = on_gpu(made({4, 6, 96, 32, Zeros::kBytes, at::kHalf, true}).weight);
  weight.group_of[5] = 3;
  EXPECT_THROW(check_grouped(weight, "w"), Error);
}

}  // namespace
}  // namespace qlora::quant
