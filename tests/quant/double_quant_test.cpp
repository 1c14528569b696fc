#include "quant/blockwise8/double_quant.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "quant/blockwise8/blockwise8.h"
#include "quant/nf4/nf4.h"
#include "tests/support/quant_golden.h"

namespace qlora::quant {
namespace {

using test::same_bytes;

at::Tensor scales(int64_t count) {
  at::manual_seed(3);
  return at::rand({count}) * 0.02 + 0.03;
}

TEST(DoubleQuant, RestoresScalesByItsFormula) {
  const at::Tensor absmax = scales(256 * 3 + 40);
  const DoubleQuantized q = double_quantize(absmax);
  EXPECT_EQ(q.codes.numel(), absmax.numel());
  EXPECT_EQ(q.nested_absmax.numel(), 4);
  const at::Tensor restored = restore_absmax(q);
  for (const int64_t b : {int64_t{0}, int64_t{255}, int64_t{256}, absmax.numel() - 1}) {
    const float product =
        signed_dynamic_map()[q.codes[b].item<uint8_t>()] * q.nested_absmax[b / 256].item<float>();
    EXPECT_EQ(restored[b].item<float>(), product + q.offset.item<float>());
  }
}

TEST(DoubleQuant, RestoredScalesAreOffByLessThanOnePercentOfTheirSpread) {
  const at::Tensor absmax = scales(4096);
  const DoubleQuantized q = double_quantize(absmax);
  const at::Tensor spread = (absmax - q.offset).abs().max();
  // Half the widest gap of the map is 0.9 / 128 = 0.7 %.
  EXPECT_TRUE((restore_absmax(q) - absmax).abs().le(spread * 0.0072).all().item<bool>());
}

TEST(DoubleQuant, EqualScalesAreRestoredExactly) {
  // absmax - offset is zero everywhere, so codes decode to -0 and the offset remains.
  const at::Tensor absmax = at::full({300}, 0.125f);
  EXPECT_TRUE(at::equal(restore_absmax(double_quantize(absmax)), absmax));
}

TEST(DoubleQuant, ASingleScaleIsItsOwnOffset) {
  const at::Tensor absmax = at::full({1}, 0.1f);
  EXPECT_TRUE(at::equal(restore_absmax(double_quantize(absmax)), absmax));
}

TEST(DoubleQuant, TheFusedDecodeEqualsRestoringTheScalesFirst) {
  at::manual_seed(5);
  const at::Tensor weight = at::randn({96, 160}) * 0.02;
  for (const int64_t block_size : {32, 64, 512}) {
    const FourBitTensor q = quantize_four_bit(weight, {FourBitCode::kNf4, block_size}, true);
    FourBitTensor plain = q;
    plain.absmax = restore_absmax(*q.scales);
    plain.scales.reset();
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      at::Tensor fused = at::empty(weight.sizes(), dtype), apart = at::empty(weight.sizes(), dtype);
      dequantize_range(q, 0, q.num_elements, fused);
      dequantize_range(plain, 0, q.num_elements, apart);
      EXPECT_TRUE(same_bytes(fused, apart));
    }
  }
}

TEST(DoubleQuant, TheMapOfTheFileIsTheOneThatDecodes) {
  const at::Tensor weight = at::linspace(-1, 1, 64 * 8);
  FourBitTensor q = quantize_four_bit(weight, {FourBitCode::kNf4, 64}, true);
  at::Tensor before = at::empty({512}), after = at::empty({512});
  dequantize_range(q, 0, 512, before);
  q.scales->map = q.scales->map * 0.5f;
  dequantize_range(q, 0, 512, after);
  EXPECT_FALSE(at::equal(before, after));
}

TEST(DoubleQuant, PartsThatDoNotFitTogetherAreRefused) {
  const DoubleQuantized good = double_quantize(scales(300));
  EXPECT_NO_THROW(check_double_quantized(good, 300, at::kCPU));
  const auto refused = [&](const auto& change) {
    DoubleQuantized bad = good;
    change(bad);
    EXPECT_THROW(check_double_quantized(bad, 300, at::kCPU), Error);
  };
  refused([](DoubleQuantized& q) { q.codes = q.codes.slice(0, 1).contiguous(); });
  refused([](DoubleQuantized& q) { q.nested_absmax = q.nested_absmax.slice(0, 1).contiguous(); });
  refused([](DoubleQuantized& q) { q.offset = at::zeros({2}); });
  refused([](DoubleQuantized& q) { q.map = at::zeros({16}); });
  refused([](DoubleQuantized& q) { q.map.reset(); });
  refused([](DoubleQuantized& q) { q.block_size = 0; });
  EXPECT_THROW(double_quantize(at::empty({0})), Error);
}

}  // namespace
}  // namespace qlora::quant
