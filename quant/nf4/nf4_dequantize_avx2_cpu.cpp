// Block decoder for AVX2 + F16C: the 16-bit entries are kept as two 16-byte tables, low and high
// bytes, which vpshufb looks up.
#ifdef __x86_64__
#include <immintrin.h>

#include "quant/nf4/nf4_block_decoders.h"

#define QLORA_AVX2 __attribute__((target("avx2,f16c")))

namespace qlora::quant::cpu {
namespace {

struct Products {
  __m256 lower, upper;  // codes 0..7 and 8..15
};

QLORA_AVX2 inline Products products_of(const float* table, float scale) {
  const __m256 scales = _mm256_set1_ps(scale);
  return {_mm256_mul_ps(_mm256_loadu_ps(table), scales),
          _mm256_mul_ps(_mm256_loadu_ps(table + 8), scales)};
}

// fp32 -> bf16 in the lower half of each lane: to nearest, ties to even; NaN stays NaN.
QLORA_AVX2 inline __m256i round_to_bfloat16(__m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), nan), 16);
}

// The 16 products as 16-bit words.
QLORA_AVX2 inline __m256i words_of(const Products& products, ElementType type) {
  constexpr int kRounding = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  if (type == ElementType::kFloat16)
    return _mm256_set_m128i(_mm256_cvtps_ph(products.upper, kRounding),
                            _mm256_cvtps_ph(products.lower, kRounding));
  const __m256i mixed =
      _mm256_packus_epi32(round_to_bfloat16(products.lower), round_to_bfloat16(products.upper));
  return _mm256_permute4x64_epi64(mixed, 0xd8);
}

// 16 bytes -> the 32 nibbles in element order.
QLORA_AVX2 inline __m256i nibbles_of(const uint8_t* packed) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed));
  const __m128i mask = _mm_set1_epi8(15);
  const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), mask),
                low = _mm_and_si128(bytes, mask);
  return _mm256_set_m128i(_mm_unpackhi_epi8(high, low), _mm_unpacklo_epi8(high, low));
}

QLORA_AVX2 void decode_words(const FourBitDequantizeArguments& a, int64_t first, int64_t last,
                             uint16_t* out) {
  const float* table = code_table(a.code);
  const uint8_t* packed = a.packed + first * a.block_size / 2;
  const __m256i low_byte = _mm256_set1_epi16(0xff);
  for (int64_t b = first; b < last; ++b) {
    const __m256i words = words_of(products_of(table, block_scale(a.scales, b)), a.type);
    // [low bytes of 0..7, high bytes of 0..7 | low bytes of 8..15, high bytes of 8..15]
    const __m256i bytes =
        _mm256_packus_epi16(_mm256_and_si256(words, low_byte), _mm256_srli_epi16(words, 8));
    const __m256i low_table = _mm256_permute4x64_epi64(bytes, 0x88);   // 64-bit quarters 0, 2, 0, 2
    const __m256i high_table = _mm256_permute4x64_epi64(bytes, 0xdd);  // 1, 3, 1, 3
    for (int64_t i = 0; i < a.block_size; i += 32, packed += 16, out += 32) {
      // Quarters 0, 2, 1, 3, so that the interleaving within 128-bit lanes below comes out in
      // element order.
      const __m256i nibbles = _mm256_permute4x64_epi64(nibbles_of(packed), 0xd8);
      const __m256i low = _mm256_shuffle_epi8(low_table, nibbles);
      const __m256i high = _mm256_shuffle_epi8(high_table, nibbles);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_unpacklo_epi8(low, high));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16), _mm256_unpackhi_epi8(low, high));
    }
  }
}

QLORA_AVX2 void decode_floats(const FourBitDequantizeArguments& a, int64_t first, int64_t last,
                              float* out) {
  const float* table = code_table(a.code);
  const uint8_t* packed = a.packed + first * a.block_size / 2;
  for (int64_t b = first; b < last; ++b) {
    const Products products = products_of(table, block_scale(a.scales, b));
    for (int64_t i = 0; i < a.block_size; i += 8, packed += 4, out += 8) {
      // Four bytes, each in 64 bits -> nibbles in 32-bit lanes; bit 3 chooses the half of the
      // table.
      const __m256i bytes = _mm256_cvtepu8_epi64(_mm_loadu_si32(packed));
      const __m256i lanes =
          _mm256_or_si256(_mm256_srli_epi64(bytes, 4), _mm256_slli_epi64(bytes, 32));
      const __m256 from_lower = _mm256_permutevar8x32_ps(products.lower, lanes);
      const __m256 from_upper = _mm256_permutevar8x32_ps(products.upper, lanes);
      const __m256 choice = _mm256_castsi256_ps(_mm256_slli_epi32(lanes, 28));
      _mm256_storeu_ps(out, _mm256_blendv_ps(from_lower, from_upper, choice));
    }
  }
}

}  // namespace

void decode_blocks_avx2(const FourBitDequantizeArguments& a, int64_t first, int64_t last,
                        void* out) {
  if (a.type == ElementType::kFloat32)
    return decode_floats(a, first, last, static_cast<float*>(out));
  decode_words(a, first, last, static_cast<uint16_t*>(out));
}

}  // namespace qlora::quant::cpu
#endif
