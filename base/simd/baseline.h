// Vectors of 4 floats for any processor, by the compiler's vector extension; see
// base/simd/for_each.h. A product and the sum it goes into are rounded each by itself.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/element.h"
#include "base/float16.h"
#include "base/float8.h"

namespace qlora::simd::baseline {

constexpr int kLanes = 4;
constexpr int kRegisters = 16;
using Vector [[gnu::vector_size(kLanes * 4)]] = float;

inline Vector zero() { return Vector{}; }
inline Vector all(float value) { return Vector{} + value; }
inline Vector add(Vector a, Vector b) { return a + b; }
inline Vector subtract(Vector a, Vector b) { return a - b; }
inline Vector multiply(Vector a, Vector b) { return a * b; }
inline Vector divide(Vector a, Vector b) { return a / b; }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return a * b + c; }
// The second where either is a NaN.
inline Vector greater(Vector a, Vector b) { return a > b ? a : b; }
// Each element of a where x is below the limit, of b elsewhere.
inline Vector where_below(Vector x, Vector limit, Vector a, Vector b) { return x < limit ? a : b; }

template <typename T>
inline Vector load(const T* from) {
  Vector values;
  for (int i = 0; i < kLanes; ++i) values[i] = qlora::load(from[i]);
  return values;
}
inline Vector load(const float* from) {
  Vector values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}

template <typename T>
inline void store(Vector values, T* to) {
  for (int i = 0; i < kLanes; ++i) qlora::store(values[i], to[i]);
}
inline void store(Vector values, uint16_t* to) {
  for (int i = 0; i < kLanes; ++i) to[i] = float_to_bfloat16(values[i]);
}
inline void store(Vector values, float* to) { std::memcpy(to, &values, sizeof(values)); }

// 2^n of whole numbers n in [-126, 127].
inline Vector power_of_two(Vector n) {
  Vector powers;
  for (int i = 0; i < kLanes; ++i)
    powers[i] =
        std::bit_cast<float>((static_cast<int32_t>(n[i] == n[i] ? n[i] : 0.0f) + 127) << 23);
  return powers;
}
inline Vector floor(Vector x) {
  for (int i = 0; i < kLanes; ++i) x[i] = std::floor(x[i]);
  return x;
}

// Lanes of `below` where x < bound, else of `value`.
inline Vector choose_below(Vector x, Vector bound, Vector below, Vector value) {
  return x < bound ? below : value;
}

// kLanes bytes as floats: the low halves, the high halves, or as signed or unsigned numbers.
inline Vector low_nibbles(const uint8_t* from) {
  Vector values;
  for (int i = 0; i < kLanes; ++i) values[i] = static_cast<float>(from[i] & 15);
  return values;
}
inline Vector high_nibbles(const uint8_t* from) {
  Vector values;
  for (int i = 0; i < kLanes; ++i) values[i] = static_cast<float>(from[i] >> 4);
  return values;
}
inline Vector signed_bytes(const uint8_t* from) {
  Vector values;
  for (int i = 0; i < kLanes; ++i) values[i] = static_cast<float>(static_cast<int8_t>(from[i]));
  return values;
}
inline Vector unsigned_bytes(const uint8_t* from) {
  Vector values;
  for (int i = 0; i < kLanes; ++i) values[i] = static_cast<float>(from[i]);
  return values;
}
// kLanes numbers of type E4M3 but NaN (base/float8.h).
inline Vector e4m3_bytes(const uint8_t* from) {
  Vector values;
  for (int i = 0; i < kLanes; ++i) values[i] = e4m3_to_float(from[i]);
  return values;
}
// An fp16 number that may lie unaligned.
inline float half_at(const uint8_t* from) {
  uint16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return float16_to_float(bits);
}

// To nearest, ties to even; NaN stays NaN.
inline Vector rounded_to_bfloat16(Vector values) {
  for (int i = 0; i < kLanes; ++i) values[i] = bfloat16_to_float(float_to_bfloat16(values[i]));
  return values;
}
inline Vector rounded_to_float16(Vector values) {
  for (int i = 0; i < kLanes; ++i) values[i] = float16_to_float(float_to_float16(values[i]));
  return values;
}

// 16 floats that codes of 4 bits look up.
struct Table {
  float values[16];
};
inline Table table_of(const float* values) {
  Table table;
  std::memcpy(table.values, values, sizeof(table.values));
  return table;
}
// Lane l: word l % 4 of 16 bytes, shifted right by nibbles number first + l / 4; what counts of it
// are the lowest 4 bits.
struct Codes {
  uint32_t lanes[kLanes];
};
inline Codes nibble_codes(const uint8_t* packed, int first) {
  Codes codes;
  std::memcpy(codes.lanes, packed, sizeof(codes.lanes));
  for (uint32_t& lane : codes.lanes) lane >>= 4 * first;
  return codes;
}
// Lane l: byte l / 2 of kLanes / 2, shifted right by 4 where l is odd; what counts of it are the
// lowest 4 bits.
inline Codes nibbles_in_turn(const uint8_t* packed) {
  Codes codes;
  for (int i = 0; i < kLanes; ++i) codes.lanes[i] = packed[i / 2] >> (i % 2 == 0 ? 0 : 4);
  return codes;
}
// kLanes bytes, of which the low halves are codes, or the high ones.
inline Codes low_codes(const uint8_t* from) {
  Codes codes;
  for (int i = 0; i < kLanes; ++i) codes.lanes[i] = from[i];
  return codes;
}
inline Codes high_codes(const uint8_t* from) {
  Codes codes;
  for (int i = 0; i < kLanes; ++i) codes.lanes[i] = from[i] >> 4;
  return codes;
}
inline Vector look_up(const Table& table, const Codes& codes) {
  Vector values;
  for (int i = 0; i < kLanes; ++i) values[i] = table.values[codes.lanes[i] & 15];
  return values;
}

// Words in the lanes: 32 bits from bit `shift`, 1 to 31, of `low` on, followed by those of `high`.
using Words [[gnu::vector_size(kLanes * 4)]] = uint32_t;
inline Vector spanning_words(Vector low, Vector high, int shift) {
  return (Vector)((Words)low >> shift | (Words)high << (32 - shift));
}
// kLanes bytes as words.
inline Vector byte_words(const uint8_t* from) {
  Words words;
  for (int i = 0; i < kLanes; ++i) words[i] = from[i];
  return (Vector)words;
}
// Words moved by `bits` bits, to the left where that is below 0.
inline Vector shifted_right(Vector words, int bits) {
  return (Vector)(bits < 0 ? (Words)words << -bits : (Words)words >> bits);
}
// 2^(23 - bit) + bits [bit, bit + bits) of words, as floats; bit + bits is at most 23.
inline Vector raised_in_place(Vector words, int bit, int bits) {
  const uint32_t mask = ((1u << bits) - 1) << bit;
  return (Vector)(((Words)words & mask) | static_cast<uint32_t>(127 + 23 - bit) << 23);
}
// Lane l: byte 2 l, then byte 2 l + 1 in the upper half.
inline Vector byte_pairs(const uint8_t* from) {
  Words words;
  for (int i = 0; i < kLanes; ++i) words[i] = from[2 * i] | uint32_t{from[2 * i + 1]} << 16;
  return (Vector)words;
}
// Rounded to elements of 16 bits, the first in the lower halves of the lanes; of numbers that are
// zero, normal or infinite.
inline Vector ordinary_pairs(Vector first, Vector second, const uint16_t* /*type*/) {
  const Words a = (Words)first, b = (Words)second;
  const Words lower = (a + 0x7fffu + (a >> 16 & 1u)) >> 16, upper = b + 0x7fffu + (b >> 16 & 1u);
  return (Vector)(lower | (upper & 0xffff0000u));
}
inline Vector ordinary_pairs(Vector first, Vector second, const Float16* /*type*/) {
  Float16 elements[2 * kLanes];
  for (int i = 0; i < kLanes; ++i) {
    qlora::store(first[i], elements[2 * i]);
    qlora::store(second[i], elements[2 * i + 1]);
  }
  Vector pairs;
  std::memcpy(&pairs, elements, sizeof(pairs));
  return pairs;
}

inline float sum_of(Vector v) { return (v[0] + v[2]) + (v[1] + v[3]); }

// A square of floats, mirrored at its diagonal.
inline void transpose(Vector (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < i; ++j) {
      const float upper = rows[j][i];
      rows[j][i] = rows[i][j];
      rows[i][j] = upper;
    }
}

}  // namespace qlora::simd::baseline
