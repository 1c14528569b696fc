// The loops of quant/grouped/scattered_cpu.cpp for one instruction set (base/simd/for_each.h).
namespace qlora::simd::QLORA_SIMD {
namespace {

constexpr int64_t kChunk = 128;  // columns whose words are turned at once
constexpr int kUnit = 32;        // columns whose codes fill whole words

// The words of `bytes` bytes, which may be none, below kLanes; zeros behind them.
[[gnu::noinline]] Vector last_words(const char* from, int64_t bytes) {
  float words[kLanes] = {};
  if (bytes > 0) std::memcpy(words, from, static_cast<size_t>(bytes));
  return load(words);
}

// The words of the first `bytes` bytes of kLanes rows, which end after row_bytes: to[i][l] is word
// i of row l. Whole squares are written.
[[gnu::always_inline]] inline void turn(const char* const (&rows)[kLanes], int64_t row_bytes,
                                        int64_t bytes, float* to) {
  for (int64_t at = 0; at < bytes; at += kLanes * 4, to += kLanes * kLanes) {
    Vector square[kLanes];
    if (at + kLanes * 4 <= row_bytes)
      for (int l = 0; l < kLanes; ++l)
        square[l] = load(reinterpret_cast<const float*>(rows[l] + at));
    else
      for (int l = 0; l < kLanes; ++l) square[l] = last_words(rows[l] + at, row_bytes - at);
    transpose(square);
    for (int l = 0; l < kLanes; ++l) store(square[l], to + l * kLanes);
  }
}

// Code `column` of kLanes rows plus 2^23, of a unit whose turned words these are.
template <int kBits>
[[gnu::always_inline]] inline Vector raised_codes(const float* words, int column) {
  const int word = column * kBits / 32, shift = column * kBits % 32;
  const Vector low = load(words + word * kLanes);
  if (shift + kBits <= 32) return raised_fields(low, shift, kBits);
  return raised_fields(spanning_words(low, load(words + (word + 1) * kLanes), shift), 0, kBits);
}

// Of kLanes rows side by side, [groups, kLanes]; 2^23 was added to the zeros.
struct TurnedGroups {
  const float *scales, *zeros;

  [[gnu::always_inline]] Vector decode(Vector codes, int32_t group) const {
    const int64_t at = int64_t{group} * kLanes;
    return multiply(subtract(codes, load(zeros + at)), load(scales + at));
  }
};

// Columns [kFirst, kFirst + kLanes * 4 / sizeof(T)) of a unit, as words of each row.
template <int kBits, int kFirst, typename T>
[[gnu::always_inline]] inline void decode_square(const float* words, const TurnedGroups& groups,
                                                 const int32_t* group_of,
                                                 Vector (&square)[kLanes]) {
  const auto column = [&](int c) {
    return groups.decode(raised_codes<kBits>(words, c), group_of[c]);
  };
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if constexpr (sizeof(T) == sizeof(float))
      square[i] = column(kFirst + i);
    else
      square[i] = ordinary_pairs(column(kFirst + 2 * i), column(kFirst + 2 * i + 1),
                                 static_cast<const T*>(nullptr));
  }
  transpose(square);
}

// A unit, of which `columns` are there, to row l from rows[l] + first on.
template <int kBits, int kFirst, typename T>
[[gnu::always_inline]] inline void decode_unit(const float* words, const TurnedGroups& groups,
                                               const int32_t* group_of, int64_t columns,
                                               T* const* rows, int64_t first) {
  constexpr int kColumns = kLanes * 4 / sizeof(T);
  if (kFirst >= columns) return;
  Vector square[kLanes];
  decode_square<kBits, kFirst, T>(words, groups, group_of, square);
  const int64_t left = columns - kFirst;
  if (left >= kColumns) {
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l)
      store(square[l], reinterpret_cast<float*>(rows[l] + first + kFirst));
  } else {
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) {
      float last[kLanes];
      store(square[l], last);
      std::memcpy(rows[l] + first + kFirst, last, static_cast<size_t>(left) * sizeof(T));
    }
  }
  if constexpr (kFirst + kColumns < kUnit)
    decode_unit<kBits, kFirst + kColumns, T>(words, groups, group_of, columns, rows, first);
}

// All columns of kLanes rows. Not inlined, so that the pointers stay in memory: the compiler would
// spend vectors on them.
template <int kBits, typename T>
[[gnu::noinline]] void decode_rows(const quant::GroupedRows& w, const TurnedGroups& groups,
                                   const char* (&codes)[kLanes], T* const* rows) {
  constexpr int64_t kChunkBytes = kChunk / 8 * kBits;
  int32_t last[kUnit] = {};
  for (int64_t chunk = 0; chunk < w.in; chunk += kChunk) {
    float words[(kChunkBytes / 4 + kLanes) * kLanes];
    turn(codes, w.row_bytes - chunk / 8 * kBits, kChunkBytes, words);
    for (const char*& row : codes) row += kChunkBytes;
    for (int64_t unit = 0; unit < kChunk && chunk + unit < w.in; unit += kUnit) {
      const int64_t column = chunk + unit, left = w.in - column;
      const int32_t* group_of = w.group_of + column;
      if (left < kUnit) {
        std::memcpy(last, group_of, static_cast<size_t>(left) * sizeof(int32_t));
        group_of = last;
      }
      decode_unit<kBits, 0, T>(words + unit / 32 * kBits * kLanes, groups, group_of, left, rows,
                               column);
    }
  }
}

// Rows [first, first + count), kLanes at most, to `out` [count, in]. Lanes without a row do the
// last one's work again. `room` has the rows' scales and zeros.
template <int kBits, typename T>
void decode_scattered_rows(const quant::GroupedRows& w, int64_t first, int64_t count,
                           quant::cpu::ScatteredRoom& room, T* out) {
  const char *codes[kLanes], *scales[kLanes], *zeros[kLanes];
  T* rows[kLanes];
  for (int64_t l = 0; l < kLanes; ++l) {
    const int64_t row = l < count ? l : count - 1;
    codes[l] = reinterpret_cast<const char*>(w.codes + (first + row) * w.row_bytes);
    scales[l] = reinterpret_cast<const char*>(room.scales.data() + row * w.groups);
    zeros[l] = reinterpret_cast<const char*>(room.zeros.data() + row * w.groups);
    rows[l] = out + row * w.in;
  }
  for (float& zero : room.zeros) zero += quant::cpu::kRaise;
  turn(scales, w.groups * 4, w.groups * 4, room.turned_scales.data());
  turn(zeros, w.groups * 4, w.groups * 4, room.turned_zeros.data());
  decode_rows<kBits>(w, {room.turned_scales.data(), room.turned_zeros.data()}, codes, rows);
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD
