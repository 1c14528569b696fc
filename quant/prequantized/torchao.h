// torchao's 8-bit weights as transformers stores them in safetensors files. For a layer at path P:
//
//   P._weight_qdata  int8 [out, in], P._weight_scale [out, G], P._weight_zero_point int8 [out, G]
//
//   W[o, i] = (qdata[o, i] - zero_point[o, g]) * scale[o, g]
//
// with groups of in / G inputs. The file's metadata has the class of the tensor as JSON under
// "P.weight".
#pragma once

#include <memory>

#include "quant/prequantized/stored_format.h"

namespace qlora::quant {

// FormatError naming the key of a quant_type other than 8-bit integers.
std::unique_ptr<StoredFormat> torchao_format(const io::JsonNode& config);

}  // namespace qlora::quant
