// Takes the frozen weights of a model that is being loaded to where its placement has them.
#pragma once

#include <memory>
#include <string>

#include "model/placement.h"
#include "model/weight_source.h"
#include "quant/quantization_options.h"

namespace qlora::model {

class BlockOffload {
 public:
  // Makes the file for blocks on disk, if there are any. Everything but `device` must live as long.
  // Errors of load_model().
  BlockOffload(const WeightSource& source, const ModelOptions& options,
               const quant::QuantizationOptions& quantization, at::ScalarType dtype,
               at::Device device, const Placement& placement);

  // Of the model; null if all weights stay on the device.
  const std::shared_ptr<quant::Offload>& offload() const { return offload_; }

  // The modules until end_block() are of this layer; outside of blocks they stay on the device.
  void begin_block(int64_t layer);
  void end_block();
  // The weight of a module, where it is to lie.
  std::unique_ptr<quant::FrozenWeight> placed(const std::string& module,
                                              std::unique_ptr<quant::FrozenWeight> weight);

 private:
  const WeightSource& source_;
  const Placement& placement_;
  std::shared_ptr<quant::Offload> offload_;
  std::shared_ptr<io::SpillFile> file_;
  int64_t layer_ = -1;
};

}  // namespace qlora::model
