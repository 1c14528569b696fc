// A quantized base as a Hugging Face directory in the layout of another tool: what transformers and
// PEFT load, and what model.path reads without quantizing again. A weight is written as its
// FrozenWeight::state(): bitsandbytes' layout (quant/formats/bitsandbytes_layout.h), or that of an
// ExportedWeight.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "export/float32_beside.h"
#include "export/weight_stream.h"
#include "model/causal_lm.h"
#include "model/file_layout.h"
#include "model/load.h"
#include "quant/quantization_options.h"

namespace qlora::exporting {

// Writes config.json with its quantization_config, the frozen weights as they lie in memory, the
// rest in `dtype`, what of it the base's files have in float32 once more so (Float32Beside), and
// the tokenizer, into `directory`, which must exist. `source` is where the base came from.
// ConfigError for weights that this layout cannot hold: those that a GGUF file or another tool
// packed.
void write_quantized(const std::string& directory, const model::CausalLm& model,
                     const quant::QuantizationOptions& options, const data::Tokenizer& tokenizer,
                     const std::string& source, at::ScalarType dtype);

// Which linear layers are packed and which are not: what quantization_config says of a model.
struct PackedLayers {
  explicit PackedLayers(const model::Architecture& architecture);
  std::vector<std::string> heads;     // every name that the head has, which is never packed
  std::vector<std::string> unpacked;  // below the head
  std::vector<std::string> packed;
  void add(const lora::LinearGroup& group);
  // The heads, then the others.
  std::vector<std::string> skipped() const;
};

// quantization_config of a directory with these layers.
using QuantizationConfig = std::function<nlohmann::ordered_json(const PackedLayers& layers)>;

// The same directory from a model that is never whole in memory (model::stream_model()).
class QuantizedStream {
 public:
  // The rest of the tensors is written in `dtype`, and what of it `source`, which must outlive
  // this, has in float32 beside matrices of any type once more so.
  QuantizedStream(std::string directory, const model::WeightSource& source,
                  QuantizationConfig config, at::ScalarType dtype);
  void add(const model::StreamedPart& part);
  void finish(const data::Tokenizer& tokenizer, const std::string& source);

 private:
  std::string directory_;
  model::Architecture architecture_;
  model::FileLayout layout_;
  QuantizationConfig config_;
  at::ScalarType dtype_;
  WeightStream weights_;
  Float32Beside beside_;
  PackedLayers packed_;
};

// The quantization_config of bitsandbytes' layout.
QuantizationConfig bitsandbytes_config(const quant::QuantizationOptions& options,
                                       at::ScalarType dtype);

}  // namespace qlora::exporting
