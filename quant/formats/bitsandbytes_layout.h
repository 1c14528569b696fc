// Quantized linear layers as bitsandbytes serializes them and transformers stores them
// (bitsandbytes 0.50, QuantState.as_dict() and Linear8bitLt). For a layer at path P:
//
//   4 bit  P.weight (packed), P.weight.absmax, P.weight.quant_map, with double quantization
//          P.weight.nested_absmax and P.weight.nested_quant_map, and
//          P.weight.quant_state.bitsandbytes__nf4 (or fp4): the bytes of a JSON object
//   8 bit  P.weight (int8, row-major), P.SCB (the rows' absmax), P.weight_format (0)
//
// Writing is FrozenWeight::state() of the formats themselves; the bytes that were read are the
// bytes that are written.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "io/safetensors.h"
#include "quant/formats/int8_weight.h"
#include "quant/frozen_weight.h"
#include "quant/nf4/nf4.h"

namespace qlora::quant {

// Whether the layer is stored packed.
bool is_bitsandbytes_module(const io::TensorFile& file, const std::string& module);

// The layer of this shape; adds the names it read to `read`. FormatError naming file and tensor if
// a part is missing, superfluous, of another size or dtype, or holds a table or layout that is not
// known.
std::unique_ptr<FrozenWeight> read_bitsandbytes_module(const io::TensorFile& file,
                                                       const std::string& module, WeightShape shape,
                                                       Int8Products products, at::Device device,
                                                       std::set<std::string>& read);

// "weight.quant_state.bitsandbytes__..." and its JSON as bitsandbytes writes it.
std::pair<std::string, at::Tensor> quant_state_tensor(const FourBitTensor& quantized,
                                                      const WeightShape& shape,
                                                      at::ScalarType dtype);

}  // namespace qlora::quant
