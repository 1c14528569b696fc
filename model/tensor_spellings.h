// Checkpoints whose tensors lie under another prefix than transformers' modules have: with or
// without the base model's, or within a model of text and images.
#pragma once

#include "io/tensor_file.h"
#include "model/architecture.h"

namespace qlora::model {

// Tensors of the architecture get the names of its modules; those of other parts of a multimodal
// model, and buffers that are computed, are left out. FormatError if two that differ get one name.
void name_as_transformers_does(const Architecture& architecture, io::TensorFile& file);

}  // namespace qlora::model
