#include "model/offload_blocks.h"

#include <utility>

#include "base/error.h"
#include "io/spill_file.h"
#include "model/layer_quantization.h"
#include "quant/frozen_size.h"
#include "quant/offload/offloaded_weight.h"
#include "quant/tensor_file.h"

namespace qlora::model {
namespace {
using quant::Home;

// Whether a module's weight lies in the model's file as it will be kept.
bool lies_in_file(const WeightSource& source, const quant::QuantizationOptions& quantization,
                  at::ScalarType dtype, const std::string& module, const LinearSpec& linear) {
  const io::TensorView* view = source.stored(module + ".weight");
  if (view == nullptr || linear.stored_by_inputs) return false;
  if (!source.packing(module).empty()) return true;
  const bool dense = quantization.method == "none" || quantization.method == "as_stored";
  return dense && view->dtype == quant::file_dtype(dtype);
}

// What blocks on disk will take in the file that is written for them. What GGUF blocks take that
// stay as they are is not known here and left out.
int64_t bytes_to_write(const WeightSource& source, const quant::QuantizationOptions& quantization,
                       at::ScalarType dtype, const Placement& placement) {
  const Architecture& a = source.architecture();
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < a.num_layers(); ++layer) {
    if (placement.of(layer) != Home::kDisk) continue;
    a.block(layer).for_each_linear([&](const LinearSpec& linear) {
      const std::string module = a.module(layer, linear.names);
      const bool kept = quantization.method == "as_stored" && !source.packing(module).empty();
      if (kept || lies_in_file(source, quantization, dtype, module, linear)) return;
      bytes += quant::frozen_size(quant::WeightShape::matrix(linear.out, linear.in), dtype,
                                  quantization_of_layer(linear, quantization), module)
                   .bytes;
    });
  }
  return bytes;
}

}  // namespace

BlockOffload::BlockOffload(const WeightSource& source, const ModelOptions& options,
                           const quant::QuantizationOptions& quantization, at::ScalarType dtype,
                           at::Device device, const Placement& placement)
    : source_(source), placement_(placement) {
  if (!placement.elsewhere()) return;
  if (placement.count(Home::kDisk) > 0) {
    if (options.offload_dir.empty())
      throw ConfigError("model.offload_dir must name a directory for the blocks on disk");
    file_ = std::make_shared<io::SpillFile>(options.offload_dir,
                                            bytes_to_write(source, quantization, dtype, placement));
  }
  offload_ = std::make_shared<quant::Offload>(device, file_);
}

void BlockOffload::begin_block(int64_t layer) {
  layer_ = layer;
  if (file_) file_->begin_page();
}

void BlockOffload::end_block() {
  if (offload_) offload_->leave(layer_);
  layer_ = -1;
}

std::unique_ptr<quant::FrozenWeight> BlockOffload::placed(
    const std::string& module, std::unique_ptr<quant::FrozenWeight> weight) {
  if (layer_ < 0 || placement_.of(layer_) == Home::kDevice) return weight;
  return std::make_unique<quant::OffloadedWeight>(
      std::move(weight), offload_, layer_, placement_.of(layer_),
      [&](const std::string& name) { return source_.stored(module + "." + name); });
}

}  // namespace qlora::model
