#include "quant/prequantized/code_words.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/parallel_for.h"
#include "quant/grouped/grouped.h"

namespace qlora::quant {
namespace {

constexpr int64_t kLine = 16;  // words of a cache line
constexpr int kAwqColumns[8] = {0, 2, 4, 6, 1, 3, 5, 7};

const uint32_t* words_of(const at::Tensor& words) {
  check(words.dim() == 2 && words.scalar_type() == at::kInt && words.is_contiguous() &&
            words.is_cpu(),
        "codes must lie in a contiguous matrix of int32 words on the CPU");
  return reinterpret_cast<const uint32_t*>(words.const_data_ptr<int32_t>());
}

uint32_t* words_of_rows(at::Tensor& rows) {
  return reinterpret_cast<uint32_t*>(rows.mutable_data_ptr<uint8_t>());
}

void unpack_row(const uint32_t* words, int bits, int64_t count, uint8_t* codes) {
  const uint32_t mask = (1u << bits) - 1;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t bit = i * bits;
    const int shift = static_cast<int>(bit % 32);
    uint32_t code = words[bit / 32] >> shift;
    if (shift + bits > 32) code |= words[bit / 32 + 1] << (32 - shift);
    codes[i] = static_cast<uint8_t>(code & mask);
  }
}

// Nibble n of word j becomes nibble j of word n: blocks of 4, of 2 and of 1 beside the diagonal
// change places (Warren, Hacker's Delight, 7-3).
void transpose_nibbles(uint32_t (&words)[8]) {
  const auto exchange = [&](int width, uint32_t mask) {
    for (int j = 0; j < 8; ++j) {
      if (j & width) continue;
      const uint32_t change = ((words[j] >> (4 * width)) ^ words[j + width]) & mask;
      words[j + width] ^= change;
      words[j] ^= change << (4 * width);
    }
  };
  exchange(4, 0x0000ffffu);
  exchange(2, 0x00ff00ffu);
  exchange(1, 0x0f0f0f0fu);
}

struct AwqMatrix {
  const uint32_t* words;  // [in, columns]
  int64_t in, columns, out;
};

// The rows of word column `c`, from input `begin` to `end`: eight rows of `row_words` words.
void transpose_awq_column(const AwqMatrix& from, int64_t c, int64_t begin, int64_t end,
                          int64_t row_words, uint32_t* rows) {
  for (int64_t i = begin; i < end; i += 8) {
    uint32_t block[8] = {};
    for (int64_t j = 0; j < std::min<int64_t>(8, end - i); ++j)
      block[j] = from.words[(i + j) * from.columns + c];
    transpose_nibbles(block);
    for (int n = 0; n < 8; ++n)
      if (const int64_t row = 8 * c + kAwqColumns[n]; row < from.out)
        rows[row * row_words + i / 8] = block[n];
  }
}

}  // namespace

int64_t num_words(int64_t codes, int bits) { return (codes * bits + 31) / 32; }

int kept_bits(int bits) { return bits <= 4 ? bits : 8; }

at::Tensor transposed_words(const at::Tensor& words) {
  const int64_t rows = words.size(0), columns = words.size(1);
  at::Tensor result = at::empty({columns, rows}, at::kInt);
  const uint32_t* from = words_of(words);
  auto* to = reinterpret_cast<uint32_t*>(result.mutable_data_ptr<int32_t>());
  parallel_for((columns + kLine - 1) / kLine, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin * kLine; tile < std::min(end * kLine, columns); tile += kLine)
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = tile; c < std::min(tile + kLine, columns); ++c)
          to[c * rows + r] = from[r * columns + c];
  });
  return result;
}

at::Tensor unpack_stream(const at::Tensor& words, int bits, int64_t count) {
  const uint32_t* from = words_of(words);
  const int64_t rows = words.size(0), row_words = words.size(1);
  check(row_words == num_words(count, bits), "{} codes of {} bits cannot fill {} words", count,
        bits, row_words);
  at::Tensor codes = at::empty({rows, count}, at::kByte);
  auto* to = codes.mutable_data_ptr<uint8_t>();
  parallel_for(rows, 1 + 32768 / std::max<int64_t>(count, 1), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      unpack_row(from + r * row_words, bits, count, to + r * count);
  });
  return codes;
}

at::Tensor unpack_whole_codes(const at::Tensor& words, int bits, int64_t count) {
  const uint32_t* from = words_of(words);
  const int64_t rows = words.size(0), row_words = words.size(1), per_word = 32 / bits;
  check(row_words == (count + per_word - 1) / per_word, "{} codes of {} bits cannot fill {} words",
        count, bits, row_words);
  at::Tensor codes = at::empty({rows, count}, at::kByte);
  auto* to = codes.mutable_data_ptr<uint8_t>();
  const uint32_t mask = (1u << bits) - 1;
  parallel_for(rows, 1 + 32768 / std::max<int64_t>(count, 1), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t i = 0; i < count; ++i)
        to[r * count + i] = static_cast<uint8_t>(
            from[r * row_words + i / per_word] >> (bits * (i % per_word)) & mask);
  });
  return codes;
}

at::Tensor rows_of_stream(const at::Tensor& words, int bits, int64_t in) {
  if (kept_bits(bits) != bits) return pack_codes(unpack_stream(words, bits, in), kept_bits(bits));
  const uint32_t* from = words_of(words);
  const int64_t rows = words.size(0), row_words = words.size(1);
  check(row_words == num_words(in, bits), "{} codes of {} bits cannot fill {} words", in, bits,
        row_words);
  at::Tensor packed = at::empty({rows, grouped_row_bytes(bits, in)}, at::kByte);
  uint32_t* to = words_of_rows(packed);
  const int used = static_cast<int>((in * bits) % 32);
  const uint32_t last = used == 0 ? ~0u : (1u << used) - 1;
  parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
    std::copy(from + begin * row_words, from + end * row_words, to + begin * row_words);
    for (int64_t r = begin; r < end; ++r) to[(r + 1) * row_words - 1] &= last;
  });
  return packed;
}

at::Tensor rows_of_input_streams(const at::Tensor& words, int bits, int64_t out) {
  constexpr int64_t kBlock = 1024;  // rows whose codes are in memory as numbers; whole words each
  const int64_t in = words.size(0);
  at::Tensor packed = at::empty({out, grouped_row_bytes(kept_bits(bits), in)}, at::kByte);
  for (int64_t begin = 0; begin < out; begin += kBlock) {
    const int64_t count = std::min(kBlock, out - begin);
    const at::Tensor part = words.narrow(1, begin * bits / 32, num_words(count, bits)).contiguous();
    const at::Tensor codes = unpack_stream(part, bits, count).t().contiguous();
    packed.narrow(0, begin, count).copy_(pack_codes(codes, kept_bits(bits)));
  }
  return packed;
}

at::Tensor rows_of_awq_words(const at::Tensor& words, int64_t out) {
  constexpr int64_t kInputs = 8 * kLine;  // that fill a cache line of a row
  const AwqMatrix from{words_of(words), words.size(0), words.size(1), out};
  check(from.columns == num_words(out, 4), "{} codes of 4 bits cannot fill {} words", out,
        from.columns);
  at::Tensor packed = at::empty({out, grouped_row_bytes(4, from.in)}, at::kByte);
  uint32_t* rows = words_of_rows(packed);
  const int64_t row_words = packed.size(1) / 4;
  parallel_for((from.columns + kLine - 1) / kLine, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin * kLine; tile < std::min(end * kLine, from.columns); tile += kLine)
      for (int64_t i = 0; i < from.in; i += kInputs)
        for (int64_t c = tile; c < std::min(tile + kLine, from.columns); ++c)
          transpose_awq_column(from, c, i, std::min(i + kInputs, from.in), row_words, rows);
  });
  return packed;
}

at::Tensor unpack_awq_words(const at::Tensor& words, int64_t count) {
  const at::Tensor stored = unpack_stream(words, 4, 8 * words.size(1));
  std::vector<int64_t> nibbles(static_cast<size_t>(8 * words.size(1)));
  for (int64_t c = 0; c < words.size(1); ++c)
    for (int n = 0; n < 8; ++n) nibbles[static_cast<size_t>(8 * c + kAwqColumns[n])] = 8 * c + n;
  return stored.index_select(1, at::tensor(nibbles, at::kLong)).narrow(1, 0, count).contiguous();
}

}  // namespace qlora::quant
