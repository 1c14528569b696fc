// The loops of quant/grouped/scattered_cpu.cpp for one instruction set (base/simd/for_each.h).
#include "quant/grouped/turned_rows.h"

namespace qlora::simd::QLORA_SIMD {
namespace {

// Columns [kFirst, kUnit) of a unit, of row l to `out` + l * stride and on.
template <int kBits, typename Weights, int kFirst, typename T>
[[gnu::always_inline]] inline void decode_unit(const TurnedRows& rows, const float* words,
                                               const int32_t* group_of, T* out, int64_t stride) {
  constexpr int kColumns = kLanes * 4 / sizeof(T);
  constexpr const T* kType = nullptr;
  const auto column = [&](int c) {
    return Weights::template decode<kBits>(rows, words, kFirst + c, group_of[kFirst + c]);
  };
  Vector square[kLanes];
  if constexpr (sizeof(T) == sizeof(float)) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) square[i] = column(i);
    transpose(square);
  } else if constexpr (requires { rounded_halves(square[0], square[0], kType); }) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i)
      square[i] = rounded_halves(column(column_of_half(i, 0, kType)),
                                 column(column_of_half(i, 1, kType)), kType);
    transpose_halves(square, kType);
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i)
      square[i] = ordinary_pairs(column(2 * i), column(2 * i + 1), kType);
    transpose(square);
  }
#pragma GCC unroll 16
  for (int l = 0; l < kLanes; ++l)
    store(square[l], reinterpret_cast<float*>(out + l * stride + kFirst));
  if constexpr (kFirst + kColumns < kUnit)
    decode_unit<kBits, Weights, kFirst + kColumns, T>(rows, words, group_of, out, stride);
}

// Rows [first, first + count), kLanes at most, to `out` [count, in]. `room` has the rows' scales
// and zeros.
template <int kBits, typename Weights, typename T>
void decode_scattered_rows(const quant::GroupedRows& w, int64_t first, int64_t count,
                           quant::cpu::ScatteredRoom& room, T* out) {
  const TurnedRows rows = turn_rows<kBits, Weights>(w, first, count, room);
  int32_t last_groups[kUnit] = {};
  T part[kLanes * kUnit];
  for_each_unit<kBits>(w, rows, [&](const float* words, int64_t column) {
    const int64_t left = w.in - column, columns = left < kUnit ? left : kUnit;
    const int32_t* group_of = w.group_of + column;
    if (columns < kUnit) {
      std::memcpy(last_groups, group_of, static_cast<size_t>(columns) * sizeof(int32_t));
      group_of = last_groups;
    }
    const bool whole = columns == kUnit && count == kLanes;
    T* const to = whole ? out + column : part;
    decode_unit<kBits, Weights, 0, T>(rows, words, group_of, to, whole ? w.in : kUnit);
    if (whole) return;
    for (int64_t l = 0; l < count; ++l)
      std::memcpy(out + l * w.in + column, part + l * kUnit,
                  static_cast<size_t>(columns) * sizeof(T));
  });
}

// sums[t * stride + l] of rows [first, first + count), kLanes at most, and x [kTokens, in], which
// has whole units of columns.
template <int kBits, typename Weights, int kTokens>
void multiply_scattered_rows(const quant::GroupedRows& w, int64_t first, int64_t count,
                             quant::cpu::ScatteredRoom& room, const float* x, float* sums,
                             int64_t stride) {
  constexpr int kParts = 2;  // an addition need not wait for the one before
  const TurnedRows rows = turn_rows<kBits, Weights>(w, first, count, room);
  Vector parts[kTokens][kParts];
  for (auto& of_token : parts)
    for (Vector& part : of_token) part = zero();
  for_each_unit<kBits>(w, rows, [&](const float* words, int64_t column) {
#pragma GCC unroll 32
    for (int c = 0; c < kUnit; ++c) {
      const Vector weights =
          Weights::template decode<kBits>(rows, words, c, w.group_of[column + c]);
      for (int t = 0; t < kTokens; ++t)
        parts[t][c % kParts] =
            multiply_add(weights, all(x[t * w.in + column + c]), parts[t][c % kParts]);
    }
  });
  for (int t = 0; t < kTokens; ++t)
    store_first(add(parts[t][0], parts[t][1]), sums + t * stride, count);
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD
