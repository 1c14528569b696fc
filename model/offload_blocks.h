// Takes the frozen weights of a model that is being loaded to where its placement has them: those
// of a block layer by layer, embedding and head once they are there.
#pragma once

#include <memory>
#include <string>

#include "model/base_hash.h"
#include "model/placement.h"
#include "model/weight_source.h"
#include "quant/offload/offloaded_weight.h"
#include "quant/quantization_options.h"

namespace qlora::model {

class CausalLm;

class BlockOffload {
 public:
  // Makes the file for what lies on disk, if anything does. `dtype`: of what is not quantized.
  // `ranks`: may be null where the placement has nothing with them. The references must live as
  // long. Errors of load_model().
  BlockOffload(const WeightSource& source, const ModelOptions& options,
               const quant::QuantizationOptions& quantization, at::ScalarType dtype,
               at::Device device, at::ScalarType compute, const Placement& placement,
               const std::shared_ptr<quant::ShardGroup>& ranks = nullptr);

  // Of the blocks that are fetched to the device; null if there are none.
  const std::shared_ptr<quant::Offload>& offload() const { return offload_; }

  // Embedding and head of a model without blocks. ConfigError for a head that the file holds packed
  // and that stays so.
  void place_outer(CausalLm& model);

  // The modules until end_block(), when it is among the layers of the model, are of this layer;
  // outside of blocks they stay on the device. Where ranks keep blocks together the model's hash
  // is taken on the way.
  void begin_block(int64_t layer);
  void end_block(CausalLm& model);
  // Whether the modules now are to stay unquantized, in float32 on the CPU.
  bool in_float32() const { return layer_ >= 0 && placement_.in_float32(layer_); }
  // The weight of a module, where it is to lie.
  std::unique_ptr<quant::FrozenWeight> placed(const std::string& module,
                                              std::unique_ptr<quant::FrozenWeight> weight);

 private:
  // Moves the tensor home; whether it is there as bytes of a file.
  bool keep(at::Tensor& tensor, quant::Home home, const std::string& name);
  quant::FindInFile in_files_of(const std::string& module) const;

  const WeightSource& source_;
  const Placement& placement_;
  at::Device device_;
  bool needs_host_products_;  // of blocks in float32: the model's own are others
  std::shared_ptr<quant::Offload> offload_;
  std::shared_ptr<quant::Offload> on_cpu_;  // of what a GPU's host multiplies; null on the CPU
  std::shared_ptr<io::SpillFile> file_;
  int64_t layer_ = -1;
  BaseHasher hasher_;
};

}  // namespace qlora::model
