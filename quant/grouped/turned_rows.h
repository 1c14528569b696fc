// What quant/grouped/scattered_loops.h decodes and multiplies: rows of a weight side by side, one
// in each lane, and what a code of theirs means. Included there: no include guard.
namespace qlora::simd::QLORA_SIMD {
namespace {

constexpr int64_t kChunk = 128;  // columns whose words are turned at once
constexpr int kUnit = 32;        // columns whose codes fill whole words
// How far ahead of what is turned words are asked for: of so many rows side by side, the processor
// does not follow each by itself.
constexpr int64_t kWordsAhead = 256;

// The words of the first `bytes` bytes, which may be none; zeros behind them.
[[gnu::noinline]] Vector last_words(const char* from, int64_t bytes) {
  float words[kLanes] = {};
  const auto most = static_cast<int64_t>(sizeof(words));
  if (bytes > 0) std::memcpy(words, from, static_cast<size_t>(bytes < most ? bytes : most));
  return load(words);
}

// The words of the first `bytes` bytes of kLanes rows, each of which lies behind the one before;
// nothing is read from `end` on. to[i][l] is word i of row l. Whole squares are written.
[[gnu::always_inline]] inline void turn(const char* const (&rows)[kLanes], const char* end,
                                        int64_t bytes, float* to) {
  constexpr int64_t kBytes = kLanes * 4;
  for (int64_t at = 0; at < bytes; at += kBytes, to += kLanes * kLanes) {
    Vector square[kLanes];
    if (end - rows[kLanes - 1] >= at + kBytes)
      for (int l = 0; l < kLanes; ++l) {
        __builtin_prefetch(rows[l] + at + kWordsAhead);
        square[l] = load(reinterpret_cast<const float*>(rows[l] + at));
      }
    else
      for (int l = 0; l < kLanes; ++l) square[l] = last_words(rows[l] + at, end - rows[l] - at);
    transpose(square);
    for (int l = 0; l < kLanes; ++l) store(square[l], to + l * kLanes);
  }
}

// What is needed of kLanes rows side by side, of which only the first `count` are asked for: lanes
// behind them have the last one again.
struct TurnedRows {
  const char* codes[kLanes];
  const float *scales, *zeros[2];  // [groups, kLanes]
};

// Weights of any whole zeros, to which 2^23 was added.
struct AnyWeights {
  template <int kBits>
  [[gnu::always_inline]] static Vector decode(const TurnedRows& rows, const float* words,
                                              int column, int32_t group) {
    const int word = column * kBits / 32, bit = column * kBits % 32;
    const Vector low = load(words + word * kLanes);
    const Vector codes =
        bit + kBits <= 32
            ? raised_fields(low, bit, kBits)
            : raised_fields(spanning_words(low, load(words + (word + 1) * kLanes), bit), 0, kBits);
    const int64_t at = int64_t{group} * kLanes;
    return multiply(subtract(codes, load(rows.zeros[0] + at)), load(rows.scales + at));
  }
  template <int kBits>
  static void lay_out(const float*, float* zeros, float*) {
    store(add(load(zeros), all(quant::cpu::kRaise)), zeros);
  }
};

// Weights of short scales and zeros (are_short()). Codes stay where two of them lie in a word that
// was moved once, from bit kBit on; for c there, with 2^n added, and s and z of its group
//
//   (2^n + c) s - (2^n + z) s = (c - z) s
//
// of which both products and the result are exact.
struct ShortWeights {
  static constexpr int kBit = 12;
  template <int kBits>
  static constexpr int kTogether = kBits == 8 ? 1 : 2;

  template <int kBits>
  [[gnu::always_inline]] static Vector decode(const TurnedRows& rows, const float* words,
                                              int column, int32_t group) {
    constexpr int kColumns = kTogether<kBits>;
    const int first = column / kColumns * kColumns, which = column % kColumns;
    const int word = first * kBits / 32, bit = first * kBits % 32;
    const Vector low = load(words + word * kLanes);
    const Vector moved = bit + kColumns * kBits <= 32
                             ? shifted_right(low, bit - kBit)
                             : spanning_words(low, load(words + (word + 1) * kLanes), bit - kBit);
    const int64_t at = int64_t{group} * kLanes;
    return multiply_add(raised_in_place(moved, kBit + which * kBits, kBits), load(rows.scales + at),
                        load(rows.zeros[which] + at));
  }
  // zeros: to -(2^n + z) s, and second_zeros for the second of two codes.
  template <int kBits>
  static void lay_out(const float* scales, float* zeros, float* second_zeros) {
    const Vector s = subtract(zero(), load(scales)), z = load(zeros);
    store(multiply(add(z, all(1 << (23 - kBit))), s), zeros);
    store(multiply(add(z, all(1 << (23 - kBit - kBits))), s), second_zeros);
  }
};

// Rows [first, first + count), kLanes at most, whose scales and zeros `room` has.
template <int kBits, typename Weights>
TurnedRows turn_rows(const quant::GroupedRows& w, int64_t first, int64_t count,
                     quant::cpu::ScatteredRoom& room) {
  TurnedRows turned;
  const char *scales[kLanes], *zeros[kLanes];
  for (int64_t l = 0; l < kLanes; ++l) {
    const int64_t row = l < count ? l : count - 1;
    turned.codes[l] = reinterpret_cast<const char*>(w.codes + (first + row) * w.row_bytes);
    scales[l] = reinterpret_cast<const char*>(room.scales.data() + row * w.groups);
    zeros[l] = reinterpret_cast<const char*>(room.zeros.data() + row * w.groups);
  }
  const auto end = [](const std::vector<float>& all) {
    return reinterpret_cast<const char*>(all.data() + all.size());
  };
  float* const to = room.turned.data()->numbers;
  const int64_t size = static_cast<int64_t>(room.turned.size()) * 16 / 3;
  turn(scales, end(room.scales), w.groups * 4, to);
  turn(zeros, end(room.zeros), w.groups * 4, to + size);
  for (int64_t at = 0; at < w.groups * kLanes; at += kLanes)
    Weights::template lay_out<kBits>(to + at, to + size + at, to + 2 * size + at);
  turned.scales = to;
  turned.zeros[0] = to + size;
  turned.zeros[1] = to + 2 * size;
  return turned;
}

// Calls f(words, column) for each unit of columns, with its turned words.
template <int kBits, typename F>
[[gnu::always_inline]] inline void for_each_unit(const quant::GroupedRows& w,
                                                 const TurnedRows& rows, const F& f) {
  constexpr int64_t kChunkBytes = kChunk / 8 * kBits;
  const char* codes_end = reinterpret_cast<const char*>(w.codes + w.rows * w.row_bytes);
  for (int64_t chunk = 0; chunk < w.in; chunk += kChunk) {
    const char* codes[kLanes];
    for (int l = 0; l < kLanes; ++l) codes[l] = rows.codes[l] + chunk / 8 * kBits;
    alignas(64) float words[(kChunkBytes / 4 + kLanes) * kLanes];
    turn(codes, codes_end, kChunkBytes, words);
    for (int64_t unit = 0; unit < kChunk && chunk + unit < w.in; unit += kUnit)
      f(words + unit / 32 * kBits * kLanes, chunk + unit);
  }
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD
