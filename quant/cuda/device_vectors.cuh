// Neighbouring elements as floats, moved 16 bytes at a time wherever they lie so that this can be.
#pragma once

#include <cstdint>

#include "quant/cuda/device_arithmetic.cuh"

namespace qlora::quant::cuda {

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Neighbours {
  T element[kCount];
};

// kCount elements, a power of two, from a multiple of as many on: at once where kCount is not 1.
template <typename T, int kCount>
__device__ inline void load_neighbours(const T* from, float (&to)[kCount]) {
  const auto loaded = *reinterpret_cast<const Neighbours<T, kCount>*>(from);
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = to_float(loaded.element[i]);
}

template <typename T, int kCount>
__device__ inline void store_neighbours(const float (&from)[kCount], T* to) {
  Neighbours<T, kCount> stored;
#pragma unroll
  for (int i = 0; i < kCount; ++i) store(from[i], stored.element[i]);
  *reinterpret_cast<Neighbours<T, kCount>*>(to) = stored;
}

// Elements of a piece, the most that a thread moves at once.
template <typename T>
constexpr int kPerPiece = 16 / sizeof(T);

// Which elements of its piece a thread has.
struct Share {
  bool whole;      // all, from a multiple of 16 bytes on
  int begin, end;  // else these, one by one
};

__device__ inline int within_piece(int64_t place, int all) {
  return static_cast<int>(place < 0 ? 0 : place < all ? place : all);
}

// Of a piece from element `at` of `count`, where pieces begin at multiples of 16 bytes if
// `aligned`. The first may begin before the elements do.
template <typename T>
__device__ inline Share share_of(int64_t at, int64_t count, bool aligned) {
  constexpr int kAll = kPerPiece<T>;
  return {aligned && at >= 0 && at + kAll <= count, within_piece(-at, kAll),
          within_piece(count - at, kAll)};
}

// Elements that the thread does not have become `missing`.
template <typename T>
__device__ inline void load_floats(const T* from, Share share, float (&to)[kPerPiece<T>],
                                   float missing = 0.0f) {
  constexpr int kAll = kPerPiece<T>;
  if (share.whole) {
    Vector<T, kAll> piece;
    copy_vector<T, kAll>(from, &piece);
#pragma unroll
    for (int i = 0; i < kAll; ++i) to[i] = to_float(piece.element[i]);
    return;
  }
#pragma unroll
  for (int i = 0; i < kAll; ++i)
    to[i] = i >= share.begin && i < share.end ? to_float(from[i]) : missing;
}

// Both rounded, the first in the lower half.
__device__ inline uint32_t pair_of(float a, float b, __nv_bfloat16) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ inline uint32_t pair_of(float a, float b, __half) {
  const __half2 pair = __floats2half2_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

template <typename T>
__device__ inline uint4 piece_of(const float (&x)[kPerPiece<T>]) {
  if constexpr (sizeof(T) == sizeof(float))
    return {__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
            __float_as_uint(x[3])};
  else
    return {pair_of(x[0], x[1], T()), pair_of(x[2], x[3], T()), pair_of(x[4], x[5], T()),
            pair_of(x[6], x[7], T())};
}

// One store, which the compiler would split beside a branch that stores elements.
__device__ inline void store_piece(uint4 piece, void* to) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(piece.x), "r"(piece.y),
               "r"(piece.z), "r"(piece.w)
               : "memory");
}

template <typename T>
__device__ inline void store_floats(const float (&from)[kPerPiece<T>], Share share, T* to) {
  if (share.whole) {
    store_piece(piece_of<T>(from), to);
    return;
  }
#pragma unroll
  for (int i = 0; i < kPerPiece<T>; ++i)
    if (i >= share.begin && i < share.end) store(from[i], to[i]);
}

}  // namespace qlora::quant::cuda
