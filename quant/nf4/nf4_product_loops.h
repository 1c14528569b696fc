// The loops of quant/nf4/nf4_product_kernels.h in fp32, for one instruction set
// (base/simd/for_each.h). A block's 16 values stand in registers, where its codes are looked up.
namespace qlora::simd::QLORA_SIMD {
namespace {

// Of a weight that are summed side by side: an addition need not wait for the one before.
constexpr int kCodeRows = kRegisters == 32 ? 4 : 2;

constexpr int64_t kCodeUnit = 32;  // elements of 16 bytes
// How far ahead codes are asked for: rows that lie one after the other are read side by side, which
// the processor does not take for one stream by itself.
constexpr int64_t kCodesAhead = 4096;

[[gnu::always_inline]] inline Table values_of(const float* table, float scale,
                                              quant::ElementType rounding) {
  float values[quant::kNumFourBitCodes];
  for (int i = 0; i < quant::kNumFourBitCodes; i += kLanes) {
    Vector products = multiply(load(table + i), all(scale));
    if (rounding == quant::ElementType::kBFloat16) products = rounded_to_bfloat16(products);
    if (rounding == quant::ElementType::kFloat16) products = rounded_to_float16(products);
    store(products, values + i);
  }
  return table_of(values);
}

template <int kTokens, int kRows>
[[gnu::always_inline]] inline void multiply_code_tile(const quant::cpu::FourBitRows& w,
                                                      const uint8_t* packed, const float* scales,
                                                      const float* x, float* sums, int64_t stride) {
  const int64_t row_bytes = w.in / 2, blocks = w.in / w.block_size;
  const float* table = quant::cpu::code_table(w.code);
  Vector acc[kTokens][kRows];
  for (auto& rows : acc)
    for (Vector& sum : rows) sum = zero();
  for (int64_t block = 0; block < blocks; ++block) {
    Table values[kRows];
    for (int r = 0; r < kRows; ++r)
      values[r] = values_of(table, scales[r * blocks + block], w.rounding);
    const int64_t first = block * w.block_size;
    for (int64_t at = first; at < first + w.block_size; at += kCodeUnit) {
      for (int r = 0; r < kRows; ++r)
        __builtin_prefetch(packed + r * row_bytes + at / 2 + kCodesAhead);
      for (int nibble = 0; nibble < 8; nibble += kLanes / 4)
        for (int r = 0; r < kRows; ++r) {
          const Vector weights =
              look_up(values[r], nibble_codes(packed + r * row_bytes + at / 2, nibble));
          for (int t = 0; t < kTokens; ++t)
            acc[t][r] = multiply_add(weights, load(x + t * w.in + at + 4 * nibble), acc[t][r]);
        }
    }
  }
  for (int t = 0; t < kTokens; ++t)
    for (int r = 0; r < kRows; ++r) sums[t * stride + r] = sum_of(acc[t][r]);
}

template <int kTokens>
void multiply_codes_of(const quant::cpu::FourBitRows& w, const float* x, int64_t begin, int64_t end,
                       float* sums, int64_t stride) {
  quant::cpu::ScaleRows scales(w);
  int64_t row = begin;
  for (; row + kCodeRows <= end; row += kCodeRows)
    multiply_code_tile<kTokens, kCodeRows>(w, w.packed + row * (w.in / 2),
                                           scales.of(row, kCodeRows, end), x, sums + row - begin,
                                           stride);
  for (; row < end; ++row)
    multiply_code_tile<kTokens, 1>(w, w.packed + row * (w.in / 2), scales.of(row, 1, end), x,
                                   sums + row - begin, stride);
}

void multiply_codes(const quant::cpu::FourBitRows& w, const void* x, int64_t tokens, int64_t begin,
                    int64_t end, float* sums, int64_t stride) {
  const auto* from = static_cast<const float*>(x);
  quant::cpu::for_tokens(tokens, [&](int64_t t, auto count) {
    multiply_codes_of<count>(w, from + t * w.in, begin, end, sums + t * stride, stride);
  });
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD
