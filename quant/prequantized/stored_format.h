// Linear layers as other tools leave them in a directory: one class a format. Which layers are
// packed the tensors of the file say, never a list of names in config.json, which tools read in
// different ways.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "io/json.h"
#include "io/safetensors.h"
#include "quant/frozen_size.h"
#include "quant/frozen_weight.h"
#include "quant/quantization_options.h"

namespace qlora::quant {

class StoredFormat {
 public:
  virtual ~StoredFormat() = default;

  // For reports and messages: "GPTQ", "AWQ", "bitsandbytes nf4".
  virtual std::string name() const = 0;
  // The last components of the names of tensors that belong to packed layers ("qweight", "scales");
  // biases are none of them. Their types do not tell that of the model.
  virtual std::span<const char* const> parts() const = 0;
  // Whether the file holds the layer packed.
  virtual bool holds(const io::TensorFile& file, const std::string& module) const = 0;
  // The layer, of this shape, on `device`; adds the names that it read to `read`. FormatError
  // naming file and tensor if a part is missing, superfluous, of another size or type, or holds a
  // value that the format does not allow. ConfigError if the options ask for another quantization.
  virtual std::unique_ptr<FrozenWeight> read(const io::TensorFile& file, const std::string& module,
                                             const WeightShape& shape,
                                             const QuantizationOptions& options, at::Device device,
                                             std::set<std::string>& read) const = 0;
  // ConfigError if the options ask for another quantization than that of `place`.
  virtual void require(const QuantizationOptions& options, const std::string& place) const;
  // The options that make such weights of others, where this program can.
  virtual std::optional<QuantizationOptions> options() const { return std::nullopt; }
  // What read() would make of a layer of this shape, told from config.json alone.
  virtual FrozenSize size(const std::string& module, const WeightShape& shape) const = 0;
};

// quant_method of `config`, or what its other keys mean where old tools left it out.
std::string stored_method(const io::JsonNode& config);
// By quant_method of `config`, the quantization_config of a config.json or a quantize_config.json.
// FormatError, with the formats that are read, for others; for contradictory or unknown values the
// key is named. Null for MXFP4, whose stacks of experts are no linear layers: the files' reader
// takes them (model/expert_tensors.h).
std::unique_ptr<StoredFormat> make_stored_format(const io::JsonNode& config);

}  // namespace qlora::quant
