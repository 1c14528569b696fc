// Dequantization of single rows on the CPU, the hot loop of every forward and backward pass.
//
// A group has one scale and one zero, so that codes of up to 4 bits have at most 16 different
// results, each rounded to the output type once: decode_codes_*() make these 16 and then only look
// codes up, with byte or word shuffles. Codes of 8 bits, and those of groups that are no multiples
// of 32 columns, which are unpacked to a byte a code first, become floats that are computed with
// (grouped_loops.h).
#pragma once

#include <cstdint>
#include <vector>

#include "quant/grouped/grouped_kernels.h"

namespace qlora::quant::cpu {

// Columns of one row, from the first of a group on.
struct GroupedRow {
  const uint8_t* codes;  // as they are packed, or a byte each
  int64_t columns, group_size;
  const float *scales, *zeros;  // of the groups
};

// Scales and zeros of rows [first, first + rows) as floats, each [rows, groups].
void widen_scales_and_zeros(const GroupedRows& weight, int64_t first, int64_t rows, float* scales,
                            float* zeros);

// Whether all zeros are whole numbers of at most kMostZero, and no scale is subnormal, infinite or
// NaN. What is decoded with such numbers is zero, normal or infinite, and the differences of codes
// and zeros are exact even if kRaise was added to both.
bool are_ordinary(const float* scales, const float* zeros, int64_t count);
// Whether all scales have at most 12 significant bits, as those of 16 bits do, and lie in [2^-100,
// 2^100], and all zeros are whole numbers in [0, 256]. Then s (z + 2^11) is exact.
bool are_short(const float* scales, const float* zeros, int64_t count);
constexpr float kMostZero = 0x1p22f, kRaise = 0x1p23f;

struct alignas(64) CacheLine {
  float numbers[16];
};

// For scales and zeros of rows of a weight whose columns name their groups.
struct ScatteredRoom {
  int64_t rows;                      // that are decoded or multiplied side by side
  std::vector<float> scales, zeros;  // [rows, groups], then `rows` of anything
  std::vector<CacheLine> turned;     // three times [groups, rows], in whole squares

  explicit ScatteredRoom(int64_t groups);
};

// Rows [first, first + count) of such a weight, room.rows at most, to `out` [count, in]. False, and
// nothing is done, where that is left to decoders of single rows: their scales and zeros are not
// ordinary, they are too few, or codes have 1 bit, as no tool stores them with named groups.
bool decode_scattered(const GroupedRows& weight, int64_t first, int64_t count, ElementType type,
                      ScatteredRoom& room, void* out);

constexpr int64_t kCodeUnit = 32;  // columns

// Codes of kBits, 1 to 4, as they are packed; columns and group_size are multiples of kCodeUnit.
// `out`: [columns].
template <int kBits>
void decode_codes_avx512(const GroupedRow& row, ElementType type, void* out);
template <int kBits>
void decode_codes_avx2(const GroupedRow& row, ElementType type, void* out);

// Where kCodes codes of a unit lie, from code `first` on: the byte in which each begins, which a
// lane takes with the one behind it, and the bit.
template <int kBits, typename Lane, int kCodes>
struct CodePlaces {
  alignas(64) uint8_t bytes[sizeof(Lane) * kCodes];
  alignas(64) Lane bits[kCodes];

  explicit constexpr CodePlaces(int first) : bytes(), bits() {
    for (int i = 0; i < kCodes; ++i) {
      const int bit = (first + i) * kBits, lane = i * static_cast<int>(sizeof(Lane));
      bytes[lane] = static_cast<uint8_t>(bit / 8);
      bytes[lane + 1] = static_cast<uint8_t>(bit / 8 + 1);
      bits[i] = static_cast<Lane>(bit % 8);
    }
  }
};

}  // namespace qlora::quant::cpu
