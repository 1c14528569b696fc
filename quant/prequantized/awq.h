// AWQ (Lin et al. 2023) as AutoAWQ and GPTQModel store it. For a layer at path P of b bits, groups
// of gs inputs, G = ⌈in / gs⌉, version "gemm":
//
//   P.qweight  int32 [in, ⌈out b / 32⌉]   each input's codes along the outputs
//   P.qzeros   int32 [G, ⌈out b / 32⌉]    each group's zeros along the outputs
//   P.scales   fp16 (bf16, fp32) [G, out]
//
//   W[o, i] = (code[i, o] - zero[i / gs, o]) * scale[i / gs, o]
//
// 4 bits: nibble n of word c is of output 8 c + {0, 2, 4, 6, 1, 3, 5, 7}[n]. Other widths
// (GPTQModel): streams of bits in their natural order. Version "gemv", 4 bits: qweight int32 [out,
// ⌈in / 8⌉] and qzeros [out, zw], natural along the inputs and groups, scales [out, 8 zw], where zw
// is ⌈⌊in / gs⌋ / 8⌉, rounded up to a multiple of 2, 4, 8 for groups of 64, 32, 16.
#pragma once

#include <memory>

#include "quant/prequantized/stored_format.h"

namespace qlora::quant {

// By a quantization_config or quant_config.json: 2 to 8 bits. FormatError naming the key of other
// bits, and of versions whose order of codes is not read (gemv_fast, marlin, llm-awq, ...).
std::unique_ptr<StoredFormat> awq_format(const io::JsonNode& config);

}  // namespace qlora::quant
