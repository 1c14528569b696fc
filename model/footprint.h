// Where a model's bytes go, from the headers of its files alone: one row for each kind of module
// (embedding, q_proj, ..., norms, head) and format. Names are those of Hugging Face or of GGUF.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "io/tensor_view.h"
#include "quant/quantization_options.h"

namespace qlora::model {

struct FootprintRow {
  std::string kind;    // "embedding", "q_proj", "norms", "head", "biases", "other"
  std::string format;  // as FrozenWeight::format()
  int64_t count = 0, parameters = 0, bytes = 0;
};

// As the tensors lie in their files; the parts of a packed layer (scales, tables, state) count with
// it. Kinds in the order of a forward pass. FormatError if the state of a packed layer is damaged.
std::vector<FootprintRow> stored_footprint(const std::vector<io::TensorView>& tensors);

// As load_model() keeps them with these options: norms in float32, embedding and head in `dtype`,
// the linear layers quantized unless they are stored packed; tied embeddings are the head too.
std::vector<FootprintRow> kept_footprint(const std::vector<io::TensorView>& tensors,
                                         const quant::QuantizationOptions& options,
                                         at::ScalarType dtype, bool tied_embeddings);

}  // namespace qlora::model
