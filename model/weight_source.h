// Where a model's weights come from: one tensor at a time by its Hugging Face name, whatever the
// file format calls it and in whatever order it stores rows and columns: matrices are [out, in].
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/tensor_view.h"
#include "model/architecture.h"
#include "quant/frozen_size.h"
#include "quant/frozen_weight.h"
#include "quant/quantization_options.h"

namespace qlora::model {

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  const Architecture& architecture() const { return architecture_; }
  const std::string& place() const { return place_; }  // for messages

  virtual bool has(const std::string& name) const = 0;
  // See read_tensor; FormatError also if there is no such tensor.
  virtual at::Tensor read(const std::string& name, const std::vector<int64_t>& shape,
                          at::ScalarType dtype) = 0;
  // The weight of a linear layer that the file holds packed and the options leave so: nullptr if it
  // lies there in floating point, or is to be decoded. ConfigError if the options ask for another
  // quantization than the file has.
  virtual std::unique_ptr<quant::FrozenWeight> read_packed(
      const std::string& module, int64_t out, int64_t in, const quant::QuantizationOptions& options,
      at::Device device) = 0;
  // What read_packed() makes of the layer where another tool packed it, or of an expert in blocks
  // of a GGUF file; nothing else is told.
  virtual std::optional<quant::FrozenSize> packed_size(
      const std::string& /*module*/, int64_t /*out*/, int64_t /*in*/,
      const quant::QuantizationOptions& /*options*/) const {
    return std::nullopt;
  }
  // Where the file holds a tensor of this name, whatever it is; null: nowhere, or not as it is
  // read.
  virtual const io::TensorView* stored(const std::string& name) const {
    (void)name;
    return nullptr;
  }
  // The narrowest type that holds the file's floating-point matrices as they are: float32 where
  // they are of two kinds, bfloat16 where there are none (blocks alone).
  virtual at::ScalarType dtype() const = 0;
  // Whether it is a GGUF file whose large matrices lie in blocks, all of them: then no type is
  // said.
  virtual bool has_blocks_alone() const { return false; }
  // In which a tensor is read in a model whose matrices are read in `of_matrices`: that type in a
  // directory, as in transformers; in a GGUF file float32 for what such files have so beside
  // matrices of any type (norms, sinks, biases, routers, learned positions), and likewise in a
  // directory that was made of one and has them in a file beside (kFloat32Beside).
  virtual at::ScalarType dtype_of(const std::string& /*name*/, at::ScalarType of_matrices) const {
    return of_matrices;
  }
  // How the file packs the weight of a module: "Q4_1", "bitsandbytes' layout"; empty: it lies there
  // in floating point, or not at all.
  virtual std::string packing(const std::string& module) const = 0;
  // Tensors of the file that were never read and that the family does not know as superfluous.
  virtual std::vector<std::string> unread() const = 0;

 protected:
  Architecture architecture_;
  std::string place_;
};

// From a Hugging Face directory or a .gguf file. IoError, FormatError (unknown architecture, ...),
// ConfigError if the path is neither.
std::unique_ptr<WeightSource> open_weights(const std::string& path);

}  // namespace qlora::model
