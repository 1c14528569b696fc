#include "tests/support/quant_reference.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace qlora::test {
namespace {

using quant::FourBitCode;
using quant::kNumFourBitCodes;

const float* table_of(FourBitCode code) {
  return code == FourBitCode::kNf4 ? quant::kNf4Table : quant::kFp4Table;
}

float absmax_of(const std::vector<float>& values, int64_t begin, int64_t end) {
  float most = 0.0f;
  for (int64_t i = begin; i < end; ++i) most = std::max(most, std::fabs(values[i]));
  return most;
}

// The codes by value: sorted, and of the two zeros of FP4 the positive one first.
uint8_t cpu_code(float x, FourBitCode code) {
  const float* table = table_of(code);
  std::vector<int> order(kNumFourBitCodes);
  for (int i = 0; i < kNumFourBitCodes; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return table[a] < table[b]; });
  int rank = 0;
  while (rank < 15 && x > (table[order[rank]] + table[order[rank + 1]]) / 2.0f) ++rank;
  return static_cast<uint8_t>(order[rank]);
}

uint8_t cuda_code(float x, FourBitCode code) {
  int rank = 0;
  if (code == FourBitCode::kNf4) {
    for (float bound : quant::kNf4CudaBounds) rank += x > bound;
    return static_cast<uint8_t>(rank);
  }
  for (float bound : quant::kFp4CudaBounds) rank += std::fabs(x) > bound;
  return static_cast<uint8_t>(quant::kFp4CudaMagnitudes[rank] + (x < 0.0f ? 8 : 0));
}

void pack(std::vector<uint8_t>& packed, int64_t index, uint8_t code) {
  packed[index / 2] = static_cast<uint8_t>(packed[index / 2] | (index % 2 == 0 ? code << 4 : code));
}

}  // namespace

FourBitReference quantize_four_bit_reference(const std::vector<float>& weight, FourBitCode code,
                                             int64_t block_size) {
  const auto count = static_cast<int64_t>(weight.size());
  FourBitReference result{std::vector<uint8_t>((count + 1) / 2), {}};
  for (int64_t begin = 0; begin < count; begin += block_size) {
    const bool whole = begin + block_size <= count;
    const int64_t end = whole ? begin + block_size : count;
    const float absmax = absmax_of(weight, begin, end);
    const float divisor = std::max(absmax, 1e-38f);
    for (int64_t i = begin; i < end; ++i)
      pack(result.packed, i,
           cpu_code(whole ? weight[i] * (1.0f / divisor) : weight[i] / divisor, code));
    result.absmax.push_back(whole ? absmax : divisor);
  }
  if (count % 2 != 0) pack(result.packed, count, cpu_code(0.0f, code));
  return result;
}

FourBitReference quantize_four_bit_cuda_reference(const std::vector<float>& weight,
                                                  FourBitCode code, int64_t block_size) {
  const auto count = static_cast<int64_t>(weight.size());
  FourBitReference result{std::vector<uint8_t>((count + 1) / 2), {}};
  for (int64_t begin = 0; begin < count; begin += block_size) {
    const int64_t end = std::min(begin + block_size, count);
    const float absmax = absmax_of(weight, begin, end), reciprocal = 1.0f / absmax;
    for (int64_t i = begin; i < end; ++i)
      pack(result.packed, i, cuda_code(weight[i] * reciprocal, code));
    if (end == count && count % 2 != 0)
      pack(result.packed, count, cuda_code(0.0f * reciprocal, code));
    result.absmax.push_back(absmax);
  }
  return result;
}

std::vector<float> dequantize_four_bit_reference(const std::vector<uint8_t>& packed,
                                                 const std::vector<float>& absmax, FourBitCode code,
                                                 int64_t block_size, int64_t count) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    const int nibble = i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15;
    values.push_back(table_of(code)[nibble] * absmax[i / block_size]);
  }
  return values;
}

namespace {

Blockwise8Reference quantize8(const std::vector<float>& values, int64_t block_size,
                              const std::function<uint8_t(float)>& code_of) {
  const auto count = static_cast<int64_t>(values.size());
  Blockwise8Reference result;
  for (int64_t begin = 0; begin < count; begin += block_size) {
    const int64_t end = std::min(begin + block_size, count);
    const float absmax = absmax_of(values, begin, end), reciprocal = 1.0f / absmax;
    for (int64_t i = begin; i < end; ++i)
      result.codes.push_back(absmax == 0.0f ? uint8_t{0} : code_of(values[i] * reciprocal));
    result.absmax.push_back(absmax);
  }
  return result;
}

}  // namespace

Blockwise8Reference quantize_blockwise8_reference(const std::vector<float>& values,
                                                  const float* map, int64_t block_size) {
  return quantize8(values, block_size, [map](float x) {
    const float clamped = std::clamp(x, -1.0f, 1.0f);
    const int bin = static_cast<int>(std::fma((clamped + 1.0f) * 0.5f, 65535.0f, 0.5f));
    const float middle = -1.0f + (2.0f * static_cast<float>(bin)) / 65535.0f;
    int code = 0;
    while (code < 255 && 0.5f * (map[code] + map[code + 1]) < middle) ++code;
    return static_cast<uint8_t>(code);
  });
}

Blockwise8Reference quantize_blockwise8_cuda_reference(const std::vector<float>& values,
                                                       const float* map, int64_t block_size) {
  return quantize8(values, block_size, [map](float x) {
    int code = 0;
    for (int i = 0; i < 255; ++i) {
      const float middle = (map[i] + map[i + 1]) * 0.5f;
      if (i % 2 == 0 ? x > middle : x >= middle) code = i + 1;
    }
    return static_cast<uint8_t>(code);
  });
}

}  // namespace qlora::test
