// Where a model's bytes go, from the headers of its files alone: one row for each kind of module
// (embedding, q_proj, ..., norms, biases, head; tensor_kinds.h) and format, in the order of a
// forward pass.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/tensor_view.h"
#include "model/model_options.h"
#include "model/weight_source.h"
#include "quant/quantization_options.h"

namespace qlora::model {

struct FootprintRow {
  std::string kind;    // as TensorKind::kind
  std::string format;  // as FrozenWeight::format()
  int64_t count = 0, parameters = 0, bytes = 0;
};

// As the tensors lie in their files; the parts of a packed layer (scales, tables, state) count with
// it, and a norm's bias with the norm. `architecture` is null for a family that is not read: then
// the rows are the last parts of the tensors' names. FormatError if the state of a packed layer is
// damaged.
// `source`: a layer that another tool packed counts as one weight in the format's name; null: its
// tensors count by themselves.
std::vector<FootprintRow> stored_footprint(const std::vector<io::TensorView>& tensors,
                                           const Architecture* architecture,
                                           const WeightSource* source = nullptr);

// As load_model() keeps the model with these options: norms in float32, embedding and head in
// model.dtype or upcast, the linear layers quantized unless they stay as they are stored. Tensors
// that are no part of the model are not kept. `tensors` are those that the source reads.
std::vector<FootprintRow> kept_footprint(const WeightSource& source,
                                         const std::vector<io::TensorView>& tensors,
                                         const ModelOptions& options,
                                         const quant::QuantizationOptions& quantization);

}  // namespace qlora::model
