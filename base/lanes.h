// A register's worth of floats, for kernels that the compiler builds for several instruction sets
// (vectorize.h): where a plain loop over kLanes sums would be taken apart, the vector extension
// keeps them in registers. Passed by reference, since how one is passed by value depends on the
// instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/element.h"
#include "base/vectorize.h"

namespace qlora {

using Lanes [[gnu::vector_size(kLanes * 4)]] = float;
using WordLanes [[gnu::vector_size(kLanes * 4)]] = uint32_t;

// 2 kLanes elements as floats. 16-bit elements lie two to a word, and there they stay: lane i of
// `first` is element 2 i, of `second` element 2 i + 1. Floats come one register after the other.
[[gnu::always_inline]] inline void load_pair(const float* from, Lanes& first, Lanes& second) {
  std::memcpy(&first, from, sizeof(first));
  std::memcpy(&second, from + kLanes, sizeof(second));
}
[[gnu::always_inline]] inline void load_pair(const uint16_t* from, Lanes& first, Lanes& second) {
  WordLanes words;
  std::memcpy(&words, from, sizeof(words));
  first = (Lanes)(words << 16);
  second = (Lanes)(words & 0xffff0000u);
}
// The low halves of words, as fp16, exactly: exponents are moved by 127 - 15 = 112, those of
// infinities and NaNs twice; below 2^-14 the leading one that a float has is taken off again.
[[gnu::always_inline]] inline void widen_halves(const WordLanes& words, Lanes& floats) {
  constexpr uint32_t kExponent = 0x7c00u, kStep = 1u << 23;
  const WordLanes exponent = words & kExponent;
  const auto small = (WordLanes)(exponent == WordLanes{});
  const auto special = (WordLanes)(exponent == WordLanes{} + kExponent);
  const WordLanes bits =
      ((words & 0x7fffu) << 13) + 112 * kStep + (special & (112 * kStep)) + (small & kStep);
  const Lanes magnitude = (Lanes)bits - (Lanes)(small & (113 * kStep));
  floats = (Lanes)((WordLanes)magnitude | ((words & 0x8000u) << 16));
}
[[gnu::always_inline]] inline void load_pair(const Float16* from, Lanes& first, Lanes& second) {
  WordLanes words;
  std::memcpy(&words, from, sizeof(words));
  widen_halves(words, first);
  const WordLanes upper = words >> 16;
  widen_halves(upper, second);
}

// And back, in the order in which load_pair<T> took them.
template <typename T>
[[gnu::always_inline]] inline void store_pair(const Lanes& first, const Lanes& second, T* to) {
  constexpr int kStep = sizeof(T) == sizeof(float) ? 1 : 2;
  constexpr int kSecond = kStep == 1 ? kLanes : 1;
  for (int i = 0; i < kLanes; ++i) {
    store(first[i], to[kStep * i]);
    store(second[i], to[kStep * i + kSecond]);
  }
}

// In the order of sum_lanes of an array.
[[gnu::always_inline]] inline float sum_lanes(const Lanes& lanes) {
  using Half [[gnu::vector_size(kLanes * 2)]] = float;
  using Quarter [[gnu::vector_size(kLanes)]] = float;
  Half upper, half;
  std::memcpy(&half, &lanes, sizeof(half));
  std::memcpy(&upper, reinterpret_cast<const char*>(&lanes) + sizeof(half), sizeof(half));
  half += upper;
  Quarter high, quarter;
  std::memcpy(&quarter, &half, sizeof(quarter));
  std::memcpy(&high, reinterpret_cast<const char*>(&half) + sizeof(quarter), sizeof(quarter));
  quarter += high;
  return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

}  // namespace qlora
