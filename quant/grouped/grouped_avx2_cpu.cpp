// Decoder of nibbles for AVX2 + F16C: the 16-bit entries are kept as two 16-byte tables, low and
// high bytes, which vpshufb looks up.
#ifdef __x86_64__
#include <immintrin.h>

#include "quant/grouped/grouped_decoders.h"

#define QLORA_AVX2 __attribute__((target("avx2,f16c")))

namespace qlora::quant::cpu {
namespace {

struct Values {
  __m256 lower, upper;  // of codes 0..7 and 8..15
};

// What the 16 codes of a group mean.
QLORA_AVX2 inline Values values_of(float zero, float scale) {
  const __m256 zeros = _mm256_set1_ps(zero), scales = _mm256_set1_ps(scale);
  const __m256 lower = _mm256_set_ps(7, 6, 5, 4, 3, 2, 1, 0);
  const __m256 upper = _mm256_set_ps(15, 14, 13, 12, 11, 10, 9, 8);
  return {_mm256_mul_ps(_mm256_sub_ps(lower, zeros), scales),
          _mm256_mul_ps(_mm256_sub_ps(upper, zeros), scales)};
}

// fp32 -> bf16 in the lower half of each lane: to nearest, ties to even; NaN stays NaN.
QLORA_AVX2 inline __m256i round_to_bfloat16(__m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), nan), 16);
}

// The 16 values as 16-bit words.
QLORA_AVX2 inline __m256i words_of(const Values& values, ElementType type) {
  constexpr int kRounding = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  if (type == ElementType::kFloat16)
    return _mm256_set_m128i(_mm256_cvtps_ph(values.upper, kRounding),
                            _mm256_cvtps_ph(values.lower, kRounding));
  const __m256i mixed =
      _mm256_packus_epi32(round_to_bfloat16(values.lower), round_to_bfloat16(values.upper));
  return _mm256_permute4x64_epi64(mixed, 0xd8);
}

// 16 bytes -> their 32 codes in order, a byte each.
QLORA_AVX2 inline __m256i code_bytes(const uint8_t* codes) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
  const __m128i mask = _mm_set1_epi8(15);
  const __m128i low = _mm_and_si128(bytes, mask),
                high = _mm_and_si128(_mm_srli_epi16(bytes, 4), mask);
  return _mm256_set_m128i(_mm_unpackhi_epi8(low, high), _mm_unpacklo_epi8(low, high));
}

QLORA_AVX2 inline int64_t columns_of_group(const GroupedRow& row, int64_t first) {
  const int64_t left = row.columns - first;
  return left < row.group_size ? left : row.group_size;
}

QLORA_AVX2 void decode_words(const GroupedRow& row, ElementType type, uint16_t* out) {
  const __m256i low_byte = _mm256_set1_epi16(0xff);
  const uint8_t* codes = row.codes;
  for (int64_t first = 0, g = 0; first < row.columns; first += row.group_size, ++g) {
    const __m256i words = words_of(values_of(row.zeros[g], row.scales[g]), type);
    // [low bytes of 0..7, high bytes of 0..7 | low bytes of 8..15, high bytes of 8..15]
    const __m256i bytes =
        _mm256_packus_epi16(_mm256_and_si256(words, low_byte), _mm256_srli_epi16(words, 8));
    const __m256i low_table = _mm256_permute4x64_epi64(bytes, 0x88);   // 64-bit quarters 0, 2, 0, 2
    const __m256i high_table = _mm256_permute4x64_epi64(bytes, 0xdd);  // 1, 3, 1, 3
    for (int64_t left = columns_of_group(row, first); left > 0;
         left -= 32, codes += 16, out += 32) {
      // Quarters 0, 2, 1, 3, so that the interleaving within 128-bit lanes below comes out in
      // order.
      const __m256i in_quarters = _mm256_permute4x64_epi64(code_bytes(codes), 0xd8);
      const __m256i low = _mm256_shuffle_epi8(low_table, in_quarters);
      const __m256i high = _mm256_shuffle_epi8(high_table, in_quarters);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_unpacklo_epi8(low, high));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16), _mm256_unpackhi_epi8(low, high));
    }
  }
}

QLORA_AVX2 void decode_floats(const GroupedRow& row, float* out) {
  const uint8_t* codes = row.codes;
  for (int64_t first = 0, g = 0; first < row.columns; first += row.group_size, ++g) {
    const Values values = values_of(row.zeros[g], row.scales[g]);
    for (int64_t left = columns_of_group(row, first); left > 0; left -= 8, codes += 4, out += 8) {
      // Four bytes, each in 64 bits -> codes in the low bits of 32-bit lanes; bit 3 chooses the
      // half of the table.
      const __m256i bytes = _mm256_cvtepu8_epi64(_mm_loadu_si32(codes));
      const __m256i lanes = _mm256_or_si256(bytes, _mm256_slli_epi64(bytes, 28));
      const __m256 from_lower = _mm256_permutevar8x32_ps(values.lower, lanes);
      const __m256 from_upper = _mm256_permutevar8x32_ps(values.upper, lanes);
      const __m256 choice = _mm256_castsi256_ps(_mm256_slli_epi32(lanes, 28));
      _mm256_storeu_ps(out, _mm256_blendv_ps(from_lower, from_upper, choice));
    }
  }
}

}  // namespace

void decode_nibbles_avx2(const GroupedRow& row, ElementType type, void* out) {
  if (type == ElementType::kFloat32) return decode_floats(row, static_cast<float*>(out));
  decode_words(row, type, static_cast<uint16_t*>(out));
}

}  // namespace qlora::quant::cpu
#endif
