// Builds a CausalLm from files, one tensor at a time: read, cast to model.dtype, quantize, forget.
// Peak memory is the model as it will be kept plus one tensor.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/progress.h"
#include "model/causal_lm.h"
#include "model/model_options.h"
#include "model/weight_source.h"
#include "quant/quantization_options.h"

namespace qlora::model {

// "bfloat16", "float16", "float32"; anything else is a ConfigError naming `key`.
at::ScalarType dtype_from_string(const std::string& name, const std::string& key);

// Of ModelOptions::dtype: "auto" is the source's own.
at::ScalarType resolved_dtype(const std::string& dtype, const WeightSource& source);

// How a linear layer's frozen weight is made from what the file holds, [out, in] in model.dtype on
// the model's device. Initialisations that change the base, and reports, have their own.
using WeightMaker = std::function<std::unique_ptr<quant::FrozenWeight>(const std::string& module,
                                                                       const at::Tensor& weight)>;

// The linear layers of the decoder get the quantization of the options; embedding, head and norms
// stay in model.dtype, but for what is float32 in any GGUF file (WeightSource::dtype_of); layers
// that the file holds packed are taken as they are. Norm weights are kept as fp32 values. Biases
// that the architecture has and the file leaves out are zero, as in transformers. Warns about them,
// and about tensors that no one asked for. Errors of open_weights, read_tensor and
// make_frozen_weight; IoError if a file was changed meanwhile.
//
// Blocks that the placement has elsewhere go there layer by layer (quant/offload/offload.h). On
// disk, what the model's file holds as it is kept stays in that file; the rest is written to one in
// options.offload_dir. IoError if there is no room for it; ConfigError if there is to be such a
// file and no directory is named. Of blocks that `ranks` keep together every rank reads and
// quantizes all and keeps its part, so that no more than one is whole at a time.
std::unique_ptr<CausalLm> load_model(WeightSource& source, const ModelOptions& options,
                                     const quant::QuantizationOptions& quantization,
                                     at::Device device, at::ScalarType compute,
                                     const WeightMaker& make = {}, const Placement& placement = {},
                                     const std::shared_ptr<quant::ShardGroup>& ranks = nullptr);

// The same without its blocks: `layers` has an empty one for each.
std::unique_ptr<CausalLm> load_without_blocks(WeightSource& source, const ModelOptions& options,
                                              at::Device device, at::ScalarType compute);

// What of a model is in memory at a time while it streams by.
struct StreamedPart {
  quant::NamedTensors tensors;                        // by their Hugging Face names
  std::vector<const lora::LinearGroup*> groups = {};  // linear layers whose tensors are among them
  Block* block = nullptr;  // of a layer: that which they are of; whoever takes the part may move it
};

// Changes the linear layers of a block that was just read, and counts each in `progress`.
using BlockChange = std::function<void(int64_t layer, Block& block, Progress& progress)>;

// The model of load_model() in parts, each forgotten before the next is read: its frozen tensors in
// the order of CausalLm::frozen_state(), embedding, last norm and head one by one, then layer by
// layer, each block as `change` leaves it. Returns the model's description.
Architecture stream_model(WeightSource& source, const ModelOptions& options,
                          const quant::QuantizationOptions& quantization, at::Device device,
                          const WeightMaker& make,
                          const std::function<void(const StreamedPart&)>& take,
                          const BlockChange& change = {});

// "134.5 M weights, nf4+dq: 71 MB (210 layers), bfloat16: 57 MB"
std::string describe(const CausalLm& model);

}  // namespace qlora::model
