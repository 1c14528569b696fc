// GPTQ (Frantar et al. 2022) as AutoGPTQ, GPTQModel and transformers store it. For a layer at path
// P of b bits, groups of gs inputs, G = ⌈in / gs⌉:
//
//   P.qweight  int32 [⌈in b / 32⌉, out]   each output's codes, a stream of bits along the inputs
//   P.qzeros   int32 [G, ⌈out b / 32⌉]    each group's zeros, a stream of bits along the outputs
//   P.scales   fp16 (bf16, fp32) [G, out]
//   P.g_idx    int32 [in]                 the group of each input; absent in old files: i / gs
//
//   W[o, i] = (code[i, o] - zero[g, o]) * scale[g, o],    g = g_idx[i]
//
// Version 1 (checkpoint_format "gptq") stores zeros less 1: for 2, 4 and 8 bits the words less 1 in
// each field, so that a zero of 0 borrows from its neighbour; for 3 bits each code less 1 mod 8.
// Version 2 ("gptq_v2") stores them as they are.
#pragma once

#include <memory>

#include "quant/prequantized/stored_format.h"

namespace qlora::quant {

// By a quantization_config or quantize_config.json: 2, 3, 4 and 8 bits. FormatError naming the key
// of other bits, and of checkpoint formats that kernels of one device have for themselves.
std::unique_ptr<StoredFormat> gptq_format(const io::JsonNode& config);

}  // namespace qlora::quant
