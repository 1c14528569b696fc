// compressed-tensors, as llm-compressor stores models. For a layer at path P of b bits, G groups of
// a row's inputs:
//
//   pack-quantized   P.weight_packed  int32 [out, ⌈in b / 32⌉]: q + 2^(b-1), a stream of bits along
//                    the inputs; older releases put ⌊32 / b⌋ codes in a word
//                    P.weight_scale [out, G], P.weight_shape int64 [2] = (out, in); asymmetric:
//                    P.weight_zero_point int32 [⌈out b / 32⌉, G], z + 2^(b-1) along the outputs;
//                    with actorder "group" P.weight_g_idx int32 [in], the group of each input
//   int-quantized    P.weight int8 [out, in], P.weight_scale; asymmetric: P.weight_zero_point int8
//   float-quantized  P.weight F8_E4M3, which quant/prequantized/fp8.h reads
//
//   W[o, i] = (q[o, i] - z[o, g]) * scale[o, g]
#pragma once

#include <memory>

#include "quant/prequantized/stored_format.h"

namespace qlora::quant {

// By a quantization_config with config_groups. FormatError naming the key of formats that are not
// read (4-bit floats, sparse weights, online transforms).
std::unique_ptr<StoredFormat> compressed_tensors_format(const io::JsonNode& config);

}  // namespace qlora::quant
