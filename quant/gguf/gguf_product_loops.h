// The loops of quant/gguf/gguf_product_kernels.h for one instruction set (base/simd/for_each.h).
namespace qlora::simd::QLORA_SIMD {
namespace {

// kLanes elements of a block, from `first` on, as floats. Of nibbles, byte j holds element j (low)
// and element j + 16 (high).
template <typename Format>
[[gnu::always_inline]] inline Vector codes_at(const Table& e2m1, const uint8_t* codes,
                                              int64_t first) {
  if constexpr (Format::kSigned) {
    return signed_bytes(codes + first);
  } else if constexpr (Format::kE2m1) {
    return look_up(e2m1, first < 16 ? low_codes(codes + first) : high_codes(codes + first - 16));
  } else {
    const Vector values =
        first < 16 ? low_nibbles(codes + first) : high_nibbles(codes + first - 16);
    return Format::kOffset == 0 ? values : subtract(values, all(Format::kOffset));
  }
}

template <typename Format>
[[gnu::always_inline]] inline float scale_at(const uint8_t* block) {
  if constexpr (Format::kE2m1)
    return quant::gguf::halved_e8m0(*block);
  else
    return half_at(block);
}

// Rows of a weight that are summed side by side: an addition need not wait for the one before.
constexpr int kBlockRows = 4;

template <typename Format, int kTokens, int kRows>
[[gnu::always_inline]] inline void multiply_row_tile(const uint8_t* blocks, int64_t row_bytes,
                                                     int64_t in, const float* x,
                                                     const float* x_sums, float* sums,
                                                     int64_t stride) {
  constexpr int64_t kBlock = quant::cpu::kBlock;
  const Table e2m1 = table_of(quant::gguf::kDoubledE2m1);
  Vector acc[kTokens][kRows];
  float minima[kTokens][kRows] = {};
  for (auto& rows : acc)
    for (Vector& sum : rows) sum = zero();
  for (int64_t b = 0; b < in / kBlock; ++b)
    for (int r = 0; r < kRows; ++r) {
      const uint8_t* block = blocks + r * row_bytes + b * Format::kBytes;
      __builtin_prefetch(block + 2048);
      const Vector scale = all(scale_at<Format>(block));
      for (int64_t i = 0; i < kBlock; i += kLanes) {
        const Vector weights = multiply(codes_at<Format>(e2m1, block + Format::kCodes, i), scale);
        for (int t = 0; t < kTokens; ++t)
          acc[t][r] = multiply_add(weights, load(x + t * in + b * kBlock + i), acc[t][r]);
      }
      if constexpr (Format::kMinimum) {
        const float minimum = half_at(block + 2);
        for (int t = 0; t < kTokens; ++t) minima[t][r] += minimum * x_sums[t * (in / kBlock) + b];
      }
    }
  for (int t = 0; t < kTokens; ++t)
    for (int r = 0; r < kRows; ++r) sums[t * stride + r] = sum_of(acc[t][r]) + minima[t][r];
}

template <typename Format, int kTokens>
void multiply_blocks(const uint8_t* blocks, int64_t in, int64_t rows, const float* x,
                     const float* x_sums, float* sums, int64_t stride) {
  const int64_t row_bytes = in / quant::cpu::kBlock * Format::kBytes;
  int64_t row = 0;
  for (; row + kBlockRows <= rows; row += kBlockRows)
    multiply_row_tile<Format, kTokens, kBlockRows>(blocks + row * row_bytes, row_bytes, in, x,
                                                   x_sums, sums + row, stride);
  for (; row < rows; ++row)
    multiply_row_tile<Format, kTokens, 1>(blocks + row * row_bytes, row_bytes, in, x, x_sums,
                                          sums + row, stride);
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD
