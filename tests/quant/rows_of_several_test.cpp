#include "quant/formats/rows_of_several.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "quant/formats/four_bit_weight.h"
#include "quant/formats/grouped_weight.h"

namespace qlora::quant {
namespace {

constexpr int64_t kIn = 64;

std::unique_ptr<FrozenWeight> grouped(int64_t rows, int64_t in = kIn) {
  GroupedTensor weight;
  weight.in = in;
  weight.group_size = 32;
  weight.codes = pack_codes(at::randint(0, 16, {rows, in}, at::kByte), 4);
  weight.scales = (at::rand({rows, in / 32}) * 0.01).to(at::kHalf);
  weight.zero = 8;
  return std::make_unique<GroupedWeight>(weight, "gptq, 4 bit");
}

std::unique_ptr<FrozenWeight> nf4(int64_t rows) {
  return std::make_unique<FourBitWeight>((at::randn({rows, kIn}) * 0.02).to(at::kBFloat16),
                                         FourBitLayout{FourBitCode::kNf4, 64}, true);
}

std::unique_ptr<FrozenWeight> dense(int64_t rows, at::ScalarType dtype) {
  return std::make_unique<DenseWeight>((at::randn({rows, kIn}) * 0.02).to(dtype));
}

using Parts = std::vector<std::unique_ptr<FrozenWeight>>;

template <typename... T>
Parts parts_of(T... parts) {
  Parts all;
  (all.push_back(std::move(parts)), ...);
  return all;
}

at::Tensor rows_of(const FrozenWeight& weight, at::ScalarType dtype = at::kFloat) {
  at::Tensor out = at::empty({weight.out_features(), weight.in_features()}, dtype);
  weight.dequantize_rows(0, 0, weight.out_features(), out);
  return out;
}

at::Tensor rows_of(const Parts& parts, at::ScalarType dtype = at::kFloat) {
  std::vector<at::Tensor> all;
  for (const auto& part : parts) all.push_back(rows_of(*part, dtype));
  return at::cat(all);
}

TEST(RowsOfSeveral, HasTheRowsOfItsPartsOneBelowTheOther) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    Parts parts = parts_of(grouped(5), nf4(3), dense(4, at::kBFloat16));
    const at::Tensor expected = rows_of(parts, dtype);
    const RowsOfSeveral all(std::move(parts));
    EXPECT_EQ(all.out_features(), 12);
    EXPECT_EQ(all.in_features(), kIn);
    EXPECT_EQ(all.num_experts(), 1);
    EXPECT_TRUE(at::equal(rows_of(all, dtype), expected));
    for (int64_t begin = 0; begin <= 12; ++begin)
      for (int64_t end = begin; end <= 12; ++end) {
        at::Tensor part = at::empty({end - begin, kIn}, dtype);
        all.dequantize_rows(0, begin, end, part);
        EXPECT_TRUE(at::equal(part, expected.narrow(0, begin, end - begin))) << begin << " " << end;
      }
  }
}

TEST(RowsOfSeveral, FewRowsOfXAreMultipliedByThePartsOwnKernels) {
  // Rows enough for sums of several chunks, whose borders lie within parts.
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Parts parts = parts_of(grouped(101), nf4(150));
    const at::Tensor x = at::randn({3, kIn}).to(dtype);
    Workspace workspace;
    const at::Tensor expected =
        at::cat({parts[0]->forward(x, workspace), parts[1]->forward(x, workspace)}, 1);
    const RowsOfSeveral all(std::move(parts));
    EXPECT_TRUE(at::equal(all.forward(x, workspace), expected)) << c10::toString(dtype);
  }
}

// n terms in fp32 in any order: (n + 1) u of the sum of magnitudes, u = 2^-24.
at::Tensor bound_of(const at::Tensor& a, const at::Tensor& b) {
  const auto terms = static_cast<double>(a.size(1) + 1);
  return a.to(at::kDouble).abs().mm(b.to(at::kDouble).abs()) * (terms * std::exp2(-24));
}

TEST(RowsOfSeveral, ProductsAreThoseOfAllRowsWhateverThePartsFormats) {
  for (const at::ScalarType stored : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const int64_t tokens : {1, 3, 20}) {
      Parts parts = parts_of(dense(21, stored), grouped(30), nf4(9));
      const at::Tensor w = rows_of(parts);
      const RowsOfSeveral all(std::move(parts));
      const at::Tensor x = at::randn({tokens, kIn}), dy = at::randn({tokens, 60});
      Workspace workspace;
      const at::Tensor y = all.forward(x, workspace);
      at::Tensor dx = at::empty_like(x);
      all.input_gradient_into(dy, dx, false, workspace);
      const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
      EXPECT_TRUE(((y - wide(x).mm(wide(w).t())).abs() <= bound_of(x, w.t())).all().item<bool>())
          << c10::toString(stored) << " " << tokens;
      EXPECT_TRUE(((dx - wide(dy).mm(wide(w))).abs() <= bound_of(dy, w)).all().item<bool>())
          << c10::toString(stored) << " " << tokens;
    }
}

TEST(RowsOfSeveral, KeepsWhatItsPartsKeep) {
  Parts parts = parts_of(grouped(5), grouped(4));
  const int64_t bytes = parts[0]->bytes() + parts[1]->bytes();
  const NamedTensors first = parts[0]->state(), second = parts[1]->state();
  const RowsOfSeveral all(std::move(parts));
  EXPECT_EQ(all.bytes(), bytes);
  EXPECT_EQ(all.format(), "gptq, 4 bit");
  EXPECT_EQ(all.traits(), (WeightTraits{WeightKind::kDecoded, at::kFloat}));
  const NamedTensors state = all.state();
  ASSERT_EQ(state.size(), first.size() + second.size());
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(state[i].first, "0." + first[i].first);
    EXPECT_TRUE(at::equal(state[i].second, first[i].second));
    EXPECT_EQ(state[first.size() + i].first, "1." + second[i].first);
    EXPECT_TRUE(at::equal(state[first.size() + i].second, second[i].second));
  }
  EXPECT_EQ(RowsOfSeveral(parts_of(grouped(5), dense(2, at::kBFloat16), grouped(4))).format(),
            "gptq, 4 bit and bfloat16");
}

TEST(RowsOfSeveral, WhatDoesNotFitIsRefused) {
  EXPECT_THROW(RowsOfSeveral(Parts{}), Error);
  EXPECT_THROW(RowsOfSeveral(parts_of(grouped(5), grouped(5, 96))), Error);
  EXPECT_THROW(RowsOfSeveral(parts_of(grouped(5), std::unique_ptr<FrozenWeight>(
                                                      new DenseWeight(at::zeros({2, 3, kIn}))))),
               Error);
  const RowsOfSeveral all(parts_of(grouped(5), grouped(4)));
  at::Tensor out = at::empty({2, kIn});
  EXPECT_THROW(all.dequantize_rows(0, 8, 10, out), Error);
  EXPECT_THROW(all.dequantize_rows(1, 0, 2, out), Error);
  EXPECT_THROW(all.dequantize_rows(0, 0, 3, out), Error);
}

}  // namespace
}  // namespace qlora::quant
