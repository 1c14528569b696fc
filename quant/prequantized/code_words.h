// Codes of a few bits in the words of 32 bits into which tools pack them, brought to the rows of a
// GroupedTensor, which hold a row's codes one after the other as a little-endian stream of bits
// (quant/grouped/grouped.h). All tensors lie on the CPU; words are int32, codes uint8.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace qlora::quant {

// ⌈codes * bits / 32⌉
int64_t num_words(int64_t codes, int bits);
// The width in which codes of `bits` are kept: `bits` where a GroupedTensor may have it, else 8.
int kept_bits(int bits);

// [rows, columns] to [columns, rows].
at::Tensor transposed_words(const at::Tensor& words);

// The codes of rows that are streams of bits, [rows, num_words(count, bits)] to [rows, count]; 1 to
// 8 bits.
at::Tensor unpack_stream(const at::Tensor& words, int bits, int64_t count);
// Of rows whose words hold ⌊32 / bits⌋ codes each, beginning at the lowest bit.
at::Tensor unpack_whole_codes(const at::Tensor& words, int bits, int64_t count);

// GroupedTensor::codes, of kept_bits(bits), of rows that are streams of bits; what lies behind the
// last code is cleared.
at::Tensor rows_of_stream(const at::Tensor& words, int bits, int64_t in);
// Of streams of bits along `out`, one for each input: [in, num_words(out, bits)].
at::Tensor rows_of_input_streams(const at::Tensor& words, int bits, int64_t out);
// Of AWQ's 4-bit words along `out`, [in, ⌈out / 8⌉]: nibble n of word c is of column 8 c + {0, 2,
// 4, 6, 1, 3, 5, 7}[n].
at::Tensor rows_of_awq_words(const at::Tensor& words, int64_t out);
// The order of AWQ's nibbles undone, [rows, ⌈count / 8⌉] to codes [rows, count].
at::Tensor unpack_awq_words(const at::Tensor& words, int64_t count);

}  // namespace qlora::quant
