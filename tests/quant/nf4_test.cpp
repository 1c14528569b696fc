#include "quant/nf4/nf4.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <limits>

#include "base/device.h"
#include "base/error.h"
#include "quant/nf4/nf4_block_decoders.h"
#include "tests/support/quant_golden.h"
#include "tests/support/quant_reference.h"

namespace qlora::quant {
namespace {

using test::same_bytes;
using ::testing::HasSubstr;

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};
constexpr FourBitCode kCodes[] = {FourBitCode::kNf4, FourBitCode::kFp4};

at::Tensor normal_weight(int64_t count, at::ScalarType dtype, uint64_t seed = 1) {
  at::manual_seed(seed);
  return (at::randn({count}) * 0.02).to(dtype);
}

at::Tensor restored(const FourBitTensor& q, at::ScalarType dtype = at::kFloat) {
  at::Tensor out = at::empty({q.num_elements}, q.packed.options().dtype(dtype));
  dequantize_range(q, 0, q.num_elements, out);
  return out;
}

std::vector<float> floats(const at::Tensor& tensor) {
  const at::Tensor values = tensor.cpu().to(at::kFloat).contiguous();
  return {values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel()};
}

template <typename T>
at::Tensor tensor_of(const std::vector<T>& values, at::ScalarType dtype) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, dtype);
  std::copy(values.begin(), values.end(), static_cast<T*>(tensor.mutable_data_ptr()));
  return tensor;
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

TEST(Nf4, CodesOfABlockAreThoseWorkedOutByHand) {
  at::Tensor weight = at::zeros({32});
  weight[0] = -2.0f;  // x = -1    -> code 0
  weight[1] = 2.0f;   // x = 1     -> code 15
  weight[2] = 0.3f;   // x = 0.15  -> nearest 0.1609 (9), not 0.0796 (8)
  weight[3] = -1.0f;  // x = -0.5  -> nearest -0.5251 (2)
  const FourBitTensor q = quantize_four_bit(weight, {FourBitCode::kNf4, 32}, false);
  EXPECT_EQ(q.absmax[0].item<float>(), 2.0f);
  EXPECT_EQ(q.packed[0].item<int>(), 0x0f) << "element 0 is the high nibble";
  EXPECT_EQ(q.packed[1].item<int>(), 0x92);
  EXPECT_EQ(q.packed[2].item<int>(), 0x77) << "zero is code 7";
  const at::Tensor values = restored(q);
  EXPECT_EQ(values[0].item<float>(), -2.0f);
  EXPECT_EQ(values[1].item<float>(), 2.0f);
  EXPECT_EQ(values[2].item<float>(), 0.16093020141124725f * 2.0f);
  EXPECT_EQ(values[3].item<float>(), -0.5250730514526367f * 2.0f);
}

TEST(Fp4, CodesOfABlockAreThoseWorkedOutByHand) {
  at::Tensor weight = at::zeros({32});
  weight[0] = 12.0f;    // x = 1        -> 3
  weight[1] = -8.0f;    // x = -0.667   -> 10
  weight[2] = 0.05f;    // x = 0.00417  -> 0.0052 (1)
  weight[3] = 0.001f;   // x = 0.00008  -> the second zero (8)
  weight[4] = -0.001f;  // x = -0.00008 -> the first zero (0)
  const FourBitTensor q = quantize_four_bit(weight, {FourBitCode::kFp4, 32}, false);
  EXPECT_EQ(q.packed[0].item<int>(), 0x3a);
  EXPECT_EQ(q.packed[1].item<int>(), 0x18);
  EXPECT_EQ(q.packed[2].item<int>(), 0x00);
  EXPECT_EQ(restored(q)[1].item<float>(), -8.0f);
}

TEST(Nf4, ATieGoesToTheLowerEntry) {
  // With absmax 1 the reciprocal is exact, so that x can sit on the bound between codes 14 and 15
  // and beside it.
  const float bound = (0.7229568362236023f + 1.0f) / 2.0f;
  at::Tensor weight = at::zeros({32});
  weight[0] = 1.0f;
  weight[1] = bound;
  weight[2] = std::nextafter(bound, 1.0f);
  const FourBitTensor q = quantize_four_bit(weight, {FourBitCode::kNf4, 32}, false);
  EXPECT_EQ(q.packed[0].item<int>(), 0xfe);
  EXPECT_EQ(q.packed[1].item<int>(), 0xf7);
}

TEST(Nf4, AnAllZeroBlockStaysExactlyZero) {
  at::Tensor weight = normal_weight(64 * 4 + 10, at::kFloat);
  weight.slice(0, 64, 128).zero_();
  weight.slice(0, 256).zero_();
  for (const FourBitCode code : kCodes) {
    for (const bool double_quant : {false, true}) {
      const at::Tensor values = restored(quantize_four_bit(weight, {code, 64}, double_quant));
      EXPECT_TRUE(at::equal(values.slice(0, 64, 128), at::zeros({64})));
      EXPECT_TRUE(at::equal(values.slice(0, 256), at::zeros({10})));
      EXPECT_TRUE(values.slice(0, 0, 64).ne(0).any().item<bool>());
    }
  }
}

TEST(Nf4, AnOddCountIsPaddedWithTheCodeOfZero) {
  const FourBitTensor q = quantize_four_bit(at::ones({65}), {FourBitCode::kNf4, 64}, false);
  EXPECT_EQ(q.packed.numel(), 33);
  EXPECT_EQ(q.absmax.numel(), 2);
  EXPECT_EQ(q.packed[32].item<int>(), 0xf7);
}

TEST(Nf4, TheErrorIsAtMostHalfTheWidestGapOfTheTable) {
  const at::Tensor weight = normal_weight(64 * 512, at::kFloat);
  const FourBitTensor q = quantize_four_bit(weight, {FourBitCode::kNf4, 64}, false);
  // Widest gap: -1 to -0.6962. One ulp more for the normalisation.
  const float bound = (1.0f - 0.6961928009986877f) / 2.0f * (1.0f + 1e-6f);
  const at::Tensor error = (restored(q) - weight).abs().view({512, 64});
  EXPECT_TRUE(error.le(q.absmax.unsqueeze(1) * bound).all().item<bool>());
}

TEST(Nf4, QuantizingARestoredWeightAgainChangesNothing) {
  const FourBitTensor once =
      quantize_four_bit(normal_weight(64 * 100, at::kFloat), {FourBitCode::kNf4, 64}, false);
  const FourBitTensor twice = quantize_four_bit(restored(once), {FourBitCode::kNf4, 64}, false);
  EXPECT_TRUE(same_bytes(once.packed, twice.packed));
  EXPECT_TRUE(same_bytes(once.absmax, twice.absmax));
}

TEST(Nf4, EqualsBitsandbytesByteForByte) {
  const nlohmann::json golden = test::bitsandbytes_golden(QLORA_TEST_GOLDEN);
  for (const auto& c : golden["four_bit"]) {
    SCOPED_TRACE(c["name"].get<std::string>());
    const auto from_hex = [&](const char* key, at::ScalarType dtype) {
      return test::tensor_from_hex(c[key].get<std::string>(), dtype);
    };
    const FourBitCode code = c["code"] == "nf4" ? FourBitCode::kNf4 : FourBitCode::kFp4;
    const at::Tensor weight = from_hex("weight", test::dtype_from_name(c["dtype"]));
    const FourBitTensor q = quantize_four_bit(weight, {code, c["block_size"]}, c["double_quant"]);
    EXPECT_TRUE(same_bytes(q.packed, from_hex("packed", at::kByte)));
    if (q.scales) {
      EXPECT_TRUE(same_bytes(q.scales->codes, from_hex("codes", at::kByte)));
      EXPECT_TRUE(same_bytes(q.scales->nested_absmax, from_hex("nested_absmax", at::kFloat)));
      EXPECT_TRUE(same_bytes(q.scales->offset, from_hex("offset", at::kFloat)));
    } else {
      EXPECT_TRUE(same_bytes(q.absmax, from_hex("absmax", at::kFloat)));
    }
    EXPECT_TRUE(at::equal(restored(q), from_hex("restored", at::kFloat)));
  }
}

TEST(Nf4, TheTablesAreThoseOfBitsandbytes) {
  const nlohmann::json golden = test::bitsandbytes_golden(QLORA_TEST_GOLDEN);
  EXPECT_TRUE(same_bytes(four_bit_table(FourBitCode::kNf4),
                         test::tensor_from_hex(golden["nf4_table"], at::kFloat)));
  EXPECT_TRUE(same_bytes(four_bit_table(FourBitCode::kFp4),
                         test::tensor_from_hex(golden["fp4_table"], at::kFloat)));
}

TEST(Nf4, EveryTypeBlockSizeAndLengthEqualsTheReference) {
  for (const at::ScalarType dtype : kTypes) {
    for (const FourBitCode code : kCodes) {
      for (int64_t block_size = 32; block_size <= 4096; block_size *= 2) {
        for (const int64_t count : {int64_t{1}, block_size, block_size + 1, 2 * block_size + 31}) {
          SCOPED_TRACE(fmt::format("{} {} {}", c10::toString(dtype), block_size, count));
          const at::Tensor weight = normal_weight(count, dtype, static_cast<uint64_t>(count));
          const FourBitTensor q = quantize_four_bit(weight, {code, block_size}, false);
          const auto expected = test::quantize_four_bit_reference(floats(weight), code, block_size);
          ASSERT_TRUE(same_bytes(q.packed, tensor_of(expected.packed, at::kByte)));
          ASSERT_TRUE(same_bytes(q.absmax, tensor_of(expected.absmax, at::kFloat)));
          const auto values = test::dequantize_four_bit_reference(expected.packed, expected.absmax,
                                                                  code, block_size, count);
          for (const at::ScalarType out : kTypes)
            ASSERT_TRUE(same_bytes(restored(q, out), tensor_of(values, at::kFloat).to(out)));
        }
      }
    }
  }
}

TEST(Nf4, ProductsAreRoundedOnceToNearestEven) {
  // Scales over the whole range of fp32, subnormal results and overflow of fp16 included.
  FourBitTensor q;
  q.layout = {FourBitCode::kNf4, 32};
  q.num_elements = 32 * 400;
  q.packed = at::arange(0, q.num_elements / 2).remainder(256).to(at::kByte);
  q.absmax = at::exp2(at::linspace(-140, 120, 400)).contiguous();
  const at::Tensor exact = restored(q);
  for (const at::ScalarType out : {at::kBFloat16, at::kHalf})
    EXPECT_TRUE(same_bytes(restored(q, out), exact.to(out)));
}

TEST(Nf4, EveryBlockDecoderGivesTheSameBits) {
  const at::Tensor weight = normal_weight(64 * 300, at::kFloat);
  for (const FourBitCode code : kCodes) {
    const FourBitTensor q = quantize_four_bit(weight, {code, 64}, false);
    for (const ElementType type :
         {ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16}) {
      const auto decode = [&](const cpu::BlockDecoder& decoder) {
        at::Tensor out = at::zeros({100 * 64 * element_size(type)}, at::kByte);
        const FourBitDequantizeArguments arguments{
            q.packed.const_data_ptr<uint8_t>(),
            {q.absmax.const_data_ptr<float>(), nullptr, nullptr, nullptr, nullptr, 0},
            code,
            64,
            0,
            q.num_elements,
            nullptr,
            type};
        decoder.decode(arguments, 150, 250, out.mutable_data_ptr());
        return out;
      };
      const at::Tensor expected = decode(cpu::block_decoders().back());
      EXPECT_TRUE(expected.ne(0).any().item<bool>());
      for (const cpu::BlockDecoder& decoder : cpu::block_decoders()) {
        if (decoder.supported()) {
          EXPECT_TRUE(same_bytes(decode(decoder), expected)) << decoder.name;
        }
      }
    }
  }
}

TEST(Nf4, AnyRangeIsThatPartOfTheWhole) {
  for (const bool double_quant : {false, true}) {
    const FourBitTensor q = quantize_four_bit(normal_weight(64 * 9 + 21, at::kFloat),
                                              {FourBitCode::kNf4, 64}, double_quant);
    for (const at::ScalarType dtype : kTypes) {
      const at::Tensor whole = restored(q, dtype);
      for (int64_t begin = 0; begin <= q.num_elements; begin += 37) {
        for (const int64_t count : {0, 1, 2, 63, 64, 65, 300}) {
          const int64_t end = std::min(begin + count, q.num_elements);
          at::Tensor part = at::empty({end - begin}, dtype);
          dequantize_range(q, begin, end, part);
          ASSERT_TRUE(same_bytes(part, whole.slice(0, begin, end).contiguous()))
              << begin << " " << end;
        }
      }
    }
  }
}

TEST(Nf4, NoBitDependsOnTheThreadCount) {
  const at::Tensor weight = normal_weight(64 * 20000 + 5, at::kBFloat16);
  const int before = omp_get_max_threads();
  set_num_threads(1);
  const FourBitTensor one = quantize_four_bit(weight, {FourBitCode::kNf4, 64}, true);
  const at::Tensor one_restored = restored(one, at::kBFloat16);
  set_num_threads(3);
  const FourBitTensor three = quantize_four_bit(weight, {FourBitCode::kNf4, 64}, true);
  const at::Tensor three_restored = restored(three, at::kBFloat16);
  EXPECT_EQ(at::get_num_threads(), 3) << "double quantization restores the setting";
  set_num_threads(before);
  EXPECT_TRUE(same_bytes(one.packed, three.packed));
  EXPECT_TRUE(same_bytes(one.scales->codes, three.scales->codes));
  EXPECT_TRUE(same_bytes(one.scales->offset, three.scales->offset));
  EXPECT_TRUE(same_bytes(one_restored, three_restored));
}

TEST(Nf4, AStoredTableNamesItsCode) {
  EXPECT_EQ(four_bit_code(four_bit_table(FourBitCode::kNf4)), FourBitCode::kNf4);
  EXPECT_EQ(four_bit_code(four_bit_table(FourBitCode::kFp4)), FourBitCode::kFp4);
  at::Tensor other = four_bit_table(FourBitCode::kNf4);
  other[3] = -0.394f;
  EXPECT_EQ(four_bit_code(other), std::nullopt);
  EXPECT_EQ(four_bit_code(at::zeros({15})), std::nullopt);
}

TEST(Nf4, BytesCountWhatIsStored) {
  const at::Tensor weight = normal_weight(64 * 256, at::kFloat);
  EXPECT_EQ(quantize_four_bit(weight, {FourBitCode::kNf4, 64}, false).bytes(),
            64 * 256 / 2 + 256 * 4);
  EXPECT_EQ(quantize_four_bit(weight, {FourBitCode::kNf4, 64}, true).bytes(),
            64 * 256 / 2 + 256 + 4 + 4 + 1024);
}

// How far x is from the nearest bound between two codes of the CUDA definition.
float distance_to_bound(float x, FourBitCode code) {
  float nearest = std::numeric_limits<float>::infinity();
  if (code == FourBitCode::kNf4)
    for (const float bound : kNf4CudaBounds) nearest = std::min(nearest, std::fabs(x - bound));
  else
    for (const float bound : kFp4CudaBounds)
      nearest = std::min(nearest, std::fabs(std::fabs(x) - bound));
  return nearest;
}

class Nf4Gpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no usable GPU";
  }
};

FourBitTensor on_gpu(const FourBitTensor& host) {
  FourBitTensor device = host;
  device.packed = host.packed.cuda();
  if (host.scales)
    device.scales = {host.scales->codes.cuda(), host.scales->nested_absmax.cuda(),
                     host.scales->offset.cuda(), host.scales->map.cuda(), host.scales->block_size};
  else
    device.absmax = host.absmax.cuda();
  return device;
}

TEST_F(Nf4Gpu, ARestoredWeightEqualsThatOfTheCpu) {
  for (const FourBitCode code : kCodes) {
    for (const bool double_quant : {false, true}) {
      for (const int64_t block_size : {32, 64, 4096}) {
        const FourBitTensor host = quantize_four_bit(normal_weight(4096 * 3 + 77, at::kFloat),
                                                     {code, block_size}, double_quant);
        const FourBitTensor device = on_gpu(host);
        for (const at::ScalarType dtype : kTypes) {
          // -0 where FP4 has its second zero: equal as numbers.
          EXPECT_TRUE(at::equal(restored(device, dtype).cpu(), restored(host, dtype)));
          at::Tensor part = at::empty({1001}, at::TensorOptions().dtype(dtype).device(at::kCUDA));
          dequantize_range(device, 63, 1064, part);
          EXPECT_TRUE(at::equal(part.cpu(), restored(host, dtype).slice(0, 63, 1064)));
        }
      }
    }
  }
}

// Of more than eight million numbers a thread decodes four chunks; the last ones have fewer.
TEST_F(Nf4Gpu, ALargeWeightEqualsThatOfTheCpu) {
  for (const bool double_quant : {false, true}) {
    const FourBitTensor host = quantize_four_bit(normal_weight((8 << 20) + 64 * 77 + 5, at::kFloat),
                                                 {FourBitCode::kNf4, 64}, double_quant);
    const FourBitTensor device = on_gpu(host);
    for (const at::ScalarType dtype : kTypes)
      EXPECT_TRUE(at::equal(restored(device, dtype).cpu(), restored(host, dtype)))
          << double_quant << " " << c10::toString(dtype);
  }
}

TEST_F(Nf4Gpu, CodesFollowTheCudaDefinition) {
  for (const at::ScalarType dtype : kTypes) {
    for (const FourBitCode code : kCodes) {
      for (int64_t block_size = 32; block_size <= 4096; block_size *= 2) {
        at::Tensor weight = normal_weight(4096 * 30 + 77, dtype);
        weight.slice(0, 4096, 8192).zero_();
        const auto expected =
            test::quantize_four_bit_cuda_reference(floats(weight), code, block_size);
        const FourBitTensor q = quantize_four_bit(weight.cuda(), {code, block_size}, false);
        EXPECT_TRUE(same_bytes(q.absmax.cpu(), tensor_of(expected.absmax, at::kFloat)));
        // The approximate reciprocal is off by at most one ulp, so only an x that close to a bound
        // may fall to its other side.
        const at::Tensor packed = q.packed.cpu();
        const auto* found = packed.const_data_ptr<uint8_t>();
        const std::vector<float> values = floats(weight);
        for (size_t i = 0; i < values.size(); ++i) {
          const int shift = i % 2 == 0 ? 4 : 0;
          if (((found[i / 2] ^ expected.packed[i / 2]) >> shift & 15) == 0) continue;
          const float x = values[i] / expected.absmax[i / static_cast<size_t>(block_size)];
          EXPECT_LE(distance_to_bound(x, code), 3e-7f * std::fabs(x))
              << "element " << i << ", block size " << block_size;
        }
      }
    }
  }
}

TEST_F(Nf4Gpu, ANonFiniteWeightIsNamedWithItsPlace) {
  at::Tensor weight = normal_weight(256, at::kBFloat16).cuda();
  weight[77] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(message_of([&] { quantize_four_bit(weight, {}, true); }), HasSubstr("flat index 77"));
}

}  // namespace
}  // namespace qlora::quant
