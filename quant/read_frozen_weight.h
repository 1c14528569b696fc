// The linear layers of a model of one's own: from the tensors of a file (io/weight_directory.h)
// into frozen weights and back, one at a time, so that the model never lies in memory in the file's
// 16 bit. docs/own_model.md shows how they are used.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "io/tensor_file.h"
#include "quant/frozen_weight.h"
#include "quant/quantization_options.h"
#include "quant/weight_shape.h"

namespace qlora::quant {

// MODULE.weight as a frozen weight of this shape on `device`, in memory of its own.
//
//   float32, bfloat16, float16   what make_frozen_weight() makes of it; the copy of the file's
//   tensor
//                                is gone when this returns, and so are its pages
//   packed in 4 or 8 bit         as it lies there, bit for bit: what add_frozen_weight() wrote, or
//                                bitsandbytes (quant/formats/bitsandbytes_layout.h)
//
// FormatError naming file and tensor if a part is missing, of another shape or type, or holds a
// value that is NaN or infinite. ConfigError if the layer is packed in another format than the
// options ask for; as_stored takes any.
std::unique_ptr<FrozenWeight> read_frozen_weight(const io::TensorFile& file,
                                                 const std::string& module,
                                                 const WeightShape& shape,
                                                 const QuantizationOptions& options,
                                                 at::Device device = at::kCPU);

// Adds the tensors of a weight by their names in a file: "MODULE.weight", "MODULE.weight.absmax",
// "MODULE.SCB", ... They share the weight's memory. For write_tensors() (quant/tensor_file.h).
void add_frozen_weight(NamedTensors& tensors, const std::string& module,
                       const FrozenWeight& weight);

}  // namespace qlora::quant
