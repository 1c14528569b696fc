// The loops of quant/products/code_product_kernels.h for one instruction set
// (base/simd/for_each.h).
namespace qlora::simd::QLORA_SIMD {
namespace {
using quant::cpu::CodeProductArguments;
using quant::cpu::Int8Rows;
using quant::cpu::kOne127Squared;

constexpr int kCodeVectors = kRegisters == 32 ? 3 : 2;  // of a panel
constexpr int kCodeRows = kRegisters == 32 ? 8 : 6;     // of a tile
constexpr int64_t kCodePanel = kCodeVectors * kLanes;
constexpr int64_t kStep = kLanes * kCodes;  // codes of a vector

inline int64_t words_of(int64_t depth) { return (depth + kCodes - 1) / kCodes; }

inline CodeWords words_from(const void* from) {
  CodeWords words;
  std::memcpy(&words, from, sizeof(words));
  return words;
}

// kLanes words of a row of which `count` codes are left; zeros behind them.
[[gnu::always_inline]] inline CodeWords words_at(const int8_t* codes, int64_t count) {
  int8_t rest[kStep];
  if (count < kStep) {
    std::memset(rest, 0, sizeof(rest));
    std::memcpy(rest, codes, static_cast<size_t>(count));
    codes = rest;
  }
  if constexpr (kCodes == 4) return words_from(codes);
  using Bytes [[gnu::vector_size(kLanes * 2)]] = int8_t;
  using Numbers [[gnu::vector_size(kLanes * 4)]] = int16_t;
  Bytes bytes;
  std::memcpy(&bytes, codes, sizeof(bytes));
  return (CodeWords) __builtin_convertvector(bytes, Numbers);
}

// The same of a weight.
[[gnu::always_inline]] inline CodeWords weights_at(const int8_t* codes, int64_t count) {
  const CodeWords words = words_at(codes, count);
  if constexpr (kCodes == 4) return words ^ static_cast<int32_t>(0x80808080);
  return words;
}

void lay_out(const int8_t* codes, int64_t depth, int32_t* words) {
  for (int64_t i = 0; i < depth; i += kStep, words += kLanes) {
    const CodeWords next = words_at(codes + i, depth - i);
    std::memcpy(words, &next, sizeof(next));
  }
}

// Rows of b [columns, depth] -> [words, one panel].
void pack_codes(const Int8Rows& b, int64_t columns, int64_t depth, int32_t* to) {
  const int64_t words = words_of(depth);
  for (int64_t n = 0; n < kCodePanel; n += kLanes)
    for (int64_t p = 0; p < words; p += kLanes) {
      Vector square[kLanes];
      for (int i = 0; i < kLanes; ++i)
        square[i] = n + i < columns ? (Vector)weights_at(b.codes + (n + i) * b.stride + p * kCodes,
                                                         depth - p * kCodes)
                                    : zero();
      transpose(square);
      for (int64_t i = 0; i < kLanes && p + i < words; ++i)
        std::memcpy(to + (p + i) * kCodePanel + n, &square[i], sizeof(square[i]));
    }
}

// acc[i][j] += the products of row i with the panel; rows past `rows` read the last one.
[[gnu::always_inline]] inline void multiply_words(const int32_t* a, int64_t stride, int64_t rows,
                                                  const int32_t* panel, int64_t words,
                                                  CodeWords (&acc)[kCodeRows][kCodeVectors]) {
  const int32_t* row[kCodeRows];
  for (int i = 0; i < kCodeRows; ++i) row[i] = a + (i < rows ? i : rows - 1) * stride;
  for (int64_t p = 0; p < words; ++p, panel += kCodePanel) {
    CodeWords of_b[kCodeVectors];
    for (int j = 0; j < kCodeVectors; ++j) of_b[j] = words_from(panel + j * kLanes);
    for (int i = 0; i < kCodeRows; ++i) {
      const CodeWords of_a = CodeWords{} + row[i][p];
      for (int j = 0; j < kCodeVectors; ++j) acc[i][j] = add_products(acc[i][j], of_b[j], of_a);
    }
  }
}

// All rows with a panel's columns from `column` on.
[[gnu::noinline]] void multiply_code_panel(const CodeProductArguments& p, int64_t column,
                                           const int32_t* panel) {
  const int64_t columns = p.columns - column;
  for (int64_t r = 0; r < p.rows; r += kCodeRows) {
    const int64_t first = p.row + r, rows = p.rows - r < kCodeRows ? p.rows - r : kCodeRows;
    CodeWords acc[kCodeRows][kCodeVectors];
    for (int i = 0; i < kCodeRows; ++i)
      for (CodeWords& sum : acc[i])
        sum = CodeWords{} + p.a->starts[static_cast<size_t>(first + (i < rows ? i : 0))];
    multiply_words(p.a->words.data() + first * p.a->stride, p.a->stride, rows, panel,
                   words_of(p.a->depth), acc);
    for (int i = 0; i < kCodeRows; ++i) {
      if (i >= rows) break;
      const Vector of_row = all(p.a->absmax[first + i]);
      float* to = p.sums + (r + i) * p.stride + column;
      for (int j = 0; j < kCodeVectors; ++j) {
        const int64_t n = j * kLanes;
        if (n >= columns) break;
        const Vector scale = multiply(of_row, load_first(p.b.absmax + column + n, columns - n));
        const Vector number = multiply(multiply(__builtin_convertvector(acc[i][j], Vector), scale),
                                       all(kOne127Squared));
        store(p.accumulate ? add(load(to + n), number) : number, to + n);
      }
    }
  }
}

// Rows [row, row + kRows) of p's with the codes of b as they lie.
template <int kRows>
void multiply_few(const CodeProductArguments& p, int64_t row) {
  const int32_t* words = p.a->words.data() + (p.row + row) * p.a->stride;
  for (int64_t n = 0; n < p.columns; ++n) {
    CodeWords acc[kRows] = {};
    for (int64_t i = 0, word = 0; i < p.a->depth; i += kStep, word += kLanes) {
      const CodeWords weights = weights_at(p.b.codes + n * p.b.stride + i, p.a->depth - i);
      for (int t = 0; t < kRows; ++t)
        acc[t] = add_products(acc[t], weights, words_from(words + t * p.a->stride + word));
    }
    for (int t = 0; t < kRows; ++t) {
      const int64_t at = p.row + row + t;
      int32_t sum = p.a->starts[static_cast<size_t>(at)];
      for (int i = 0; i < kLanes; ++i) sum += acc[t][i];
      const float number =
          static_cast<float>(sum) * (p.a->absmax[at] * p.b.absmax[n]) * kOne127Squared;
      float& to = p.sums[(row + t) * p.stride + n];
      to = p.accumulate ? to + number : number;
    }
  }
}

void multiply_codes(const CodeProductArguments& p) {
  if (p.rows <= quant::cpu::kFewCodeRows)
    return quant::cpu::for_tokens(p.rows,
                                  [&](int64_t row, auto count) { multiply_few<count>(p, row); });
  int32_t* panel = quant::cpu::panel_room(words_of(p.a->depth) * kCodePanel);
  for (int64_t n = 0; n < p.columns; n += kCodePanel) {
    pack_codes({p.b.codes + n * p.b.stride, p.b.stride, p.b.absmax}, p.columns - n, p.a->depth,
               panel);
    multiply_code_panel(p, n, panel);
  }
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD
