// Decoders of codes of 1 to 4 bits for AVX2 + F16C: the 16-bit entries are kept as two 16-byte
// tables, low and high bytes, which vpshufb looks up.
#ifdef __x86_64__
#include <immintrin.h>

#include "quant/grouped/grouped_decoders.h"

#define QLORA_AVX2 __attribute__((target("avx2,f16c")))

namespace qlora::quant::cpu {
namespace {

struct Values {
  __m256 lower, upper;  // of codes 0..7 and 8..15
};

// What the codes of a group mean; of fewer than 4 bits, repeated.
template <int kBits>
QLORA_AVX2 inline Values values_of(float zero, float scale) {
  const __m256 zeros = _mm256_set1_ps(zero), scales = _mm256_set1_ps(scale);
  const __m256i lanes = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  const __m256 codes =
      _mm256_cvtepi32_ps(_mm256_and_si256(lanes, _mm256_set1_epi32((1 << kBits) - 1)));
  const __m256 lower = _mm256_mul_ps(_mm256_sub_ps(codes, zeros), scales);
  if constexpr (kBits < 4) return {lower, lower};
  const __m256 others = _mm256_add_ps(codes, _mm256_set1_ps(8));
  return {lower, _mm256_mul_ps(_mm256_sub_ps(others, zeros), scales)};
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

// The 4 kBits bytes of a unit.
template <int kBits>
QLORA_AVX2 inline __m128i unit_at(const uint8_t* codes) {
  const auto* from = reinterpret_cast<const __m128i*>(codes);
  if constexpr (kBits == 1) return _mm_loadu_si32(codes);
  if constexpr (kBits == 2) return _mm_loadl_epi64(from);
  if constexpr (kBits == 3)
    return _mm_unpacklo_epi64(_mm_loadl_epi64(from), _mm_loadu_si32(codes + 8));
  return _mm_loadu_si128(from);
}

QLORA_AVX2 inline __m256i load(const void* from) {
  return _mm256_load_si256(static_cast<const __m256i*>(from));
}

// What moves each of 16 codes to the upper end of its word.
template <int kBits>
struct WordFactors {
  alignas(32) uint16_t factors[16];

  explicit constexpr WordFactors(const CodePlaces<kBits, uint16_t, 16>& places) : factors() {
    for (int i = 0; i < 16; ++i)
      factors[i] = static_cast<uint16_t>(1 << (16 - kBits - places.bits[i]));
  }
};

// 16 codes as words.
template <int kBits, int kFirst>
QLORA_AVX2 inline __m256i code_words(__m256i unit_twice) {
  static constexpr CodePlaces<kBits, uint16_t, 16> kPlaces(kFirst);
  static constexpr WordFactors<kBits> kFactors(kPlaces);
  const __m256i bytes = _mm256_shuffle_epi8(unit_twice, load(kPlaces.bytes));
  return _mm256_srli_epi16(_mm256_mullo_epi16(bytes, load(kFactors.factors)), 16 - kBits);
}

// The 32 codes of a unit, a byte each, in quarters 0, 2, 1, 3.
template <int kBits>
QLORA_AVX2 inline __m256i codes_in_quarters(const uint8_t* codes) {
  const __m128i unit = unit_at<kBits>(codes);
  if constexpr (kBits == 4) {
    const __m128i mask = _mm_set1_epi8(15);
    const __m128i low = _mm_and_si128(unit, mask),
                  high = _mm_and_si128(_mm_srli_epi16(unit, 4), mask);
    const __m256i in_order =
        _mm256_set_m128i(_mm_unpackhi_epi8(low, high), _mm_unpacklo_epi8(low, high));
    return _mm256_permute4x64_epi64(in_order, 0xd8);
  }
  const __m256i twice = _mm256_broadcastsi128_si256(unit);
  return _mm256_packus_epi16(code_words<kBits, 0>(twice), code_words<kBits, 16>(twice));
}

// 8 double words whose low bits are the codes in their order.
template <int kBits, int kFirst>
QLORA_AVX2 inline __m256i code_lanes(__m256i unit_twice) {
  static constexpr CodePlaces<kBits, uint32_t, 8> kPlaces(kFirst);
  const __m256i bytes = _mm256_shuffle_epi8(unit_twice, load(kPlaces.bytes));
  return _mm256_srlv_epi32(bytes, load(kPlaces.bits));
}

QLORA_AVX2 inline int64_t columns_of_group(const GroupedRow& row, int64_t first) {
  const int64_t left = row.columns - first;
  return left < row.group_size ? left : row.group_size;
}

template <int kBits>
QLORA_AVX2 void decode_words(const GroupedRow& row, ElementType type, uint16_t* out) {
  const __m256i low_byte = _mm256_set1_epi16(0xff);
  const uint8_t* codes = row.codes;
  for (int64_t first = 0, g = 0; first < row.columns; first += row.group_size, ++g) {
    const __m256i words = words_of(values_of<kBits>(row.zeros[g], row.scales[g]), type);
    // [low bytes of 0..7, high bytes of 0..7 | low bytes of 8..15, high bytes of 8..15]
    const __m256i bytes =
        _mm256_packus_epi16(_mm256_and_si256(words, low_byte), _mm256_srli_epi16(words, 8));
    const __m256i low_table = _mm256_permute4x64_epi64(bytes, 0x88);   // 64-bit quarters 0, 2, 0, 2
    const __m256i high_table = _mm256_permute4x64_epi64(bytes, 0xdd);  // 1, 3, 1, 3
    for (int64_t left = columns_of_group(row, first); left > 0;
         left -= kCodeUnit, codes += kCodeUnit / 8 * kBits, out += kCodeUnit) {
      // In such quarters the interleaving within 128-bit lanes below comes out in order.
      const __m256i in_quarters = codes_in_quarters<kBits>(codes);
      const __m256i low = _mm256_shuffle_epi8(low_table, in_quarters);
      const __m256i high = _mm256_shuffle_epi8(high_table, in_quarters);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_unpacklo_epi8(low, high));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16), _mm256_unpackhi_epi8(low, high));
    }
  }
}

template <int kBits>
QLORA_AVX2 inline __m256 look_up(const Values& values, __m256i lanes) {
  const __m256 from_lower = _mm256_permutevar8x32_ps(values.lower, lanes);
  if constexpr (kBits < 4) return from_lower;
  // Bit 3 chooses the half of the table.
  return _mm256_blendv_ps(from_lower, _mm256_permutevar8x32_ps(values.upper, lanes),
                          _mm256_castsi256_ps(_mm256_slli_epi32(lanes, 28)));
}

template <int kBits>
QLORA_AVX2 void decode_floats(const GroupedRow& row, float* out) {
  const uint8_t* codes = row.codes;
  for (int64_t first = 0, g = 0; first < row.columns; first += row.group_size, ++g) {
    const Values values = values_of<kBits>(row.zeros[g], row.scales[g]);
    for (int64_t left = columns_of_group(row, first); left > 0;
         left -= kCodeUnit, codes += kCodeUnit / 8 * kBits, out += kCodeUnit) {
      const __m256i twice = _mm256_broadcastsi128_si256(unit_at<kBits>(codes));
      _mm256_storeu_ps(out, look_up<kBits>(values, code_lanes<kBits, 0>(twice)));
      _mm256_storeu_ps(out + 8, look_up<kBits>(values, code_lanes<kBits, 8>(twice)));
      _mm256_storeu_ps(out + 16, look_up<kBits>(values, code_lanes<kBits, 16>(twice)));
      _mm256_storeu_ps(out + 24, look_up<kBits>(values, code_lanes<kBits, 24>(twice)));
    }
  }
}

}  // namespace

template <int kBits>
void decode_codes_avx2(const GroupedRow& row, ElementType type, void* out) {
  if (type == ElementType::kFloat32) return decode_floats<kBits>(row, static_cast<float*>(out));
  decode_words<kBits>(row, type, static_cast<uint16_t*>(out));
}

template void decode_codes_avx2<1>(const GroupedRow&, ElementType, void*);
template void decode_codes_avx2<2>(const GroupedRow&, ElementType, void*);
template void decode_codes_avx2<3>(const GroupedRow&, ElementType, void*);
template void decode_codes_avx2<4>(const GroupedRow&, ElementType, void*);

}  // namespace qlora::quant::cpu
#endif
