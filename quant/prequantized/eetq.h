// EETQ: 8-bit weights in the order that its kernels take. For a layer at path P:
//
//   P.weight (in EETQ's own modules P.qweight)  int8 [in, out] in the order of sm_75 to sm_89
//   P.weight_scales                             fp16 (bf16, fp32) [out]
//
//   W[o, i] = q[i, o] * scale[o]
//
// The bytes are those of q + 128. Of 16 inputs, place t is taken by input {0, 1, 8, 9, 2, 3, 10,
// 11, 4, 5, 12, 13, 6, 7, 14, 15}[t]; four places of an output are a word, whose bytes 1 and 2
// change places; word v of output c lies at
//
//   (c / 2)(2 in / 4) + 32 (v / 16) + 16 (c mod 2) + v mod 16.
//
// A file does not say for which device it was packed; another order (sm_70) cannot be told from
// this one.
#pragma once

#include <memory>

#include "quant/prequantized/stored_format.h"

namespace qlora::quant {

// FormatError naming the key unless weights are "int8".
std::unique_ptr<StoredFormat> eetq_format(const io::JsonNode& config);

}  // namespace qlora::quant
