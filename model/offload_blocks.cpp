#include "model/offload_blocks.h"

#include <span>
#include <utility>

#include "base/error.h"
#include "io/spill_file.h"
#include "model/causal_lm.h"
#include "model/layer_quantization.h"
#include "quant/frozen_size.h"
#include "quant/offload/host_weight.h"
#include "quant/offload/panel_weight.h"
#include "quant/tensor_file.h"

namespace qlora::model {
namespace {
using quant::Home;

// How a layer's weights are kept.
struct Kept {
  quant::QuantizationOptions quantization;
  at::ScalarType dtype;
};

Kept kept_as(const Placement& placement, int64_t layer,
             const quant::QuantizationOptions& quantization, at::ScalarType dtype) {
  if (!placement.in_float32(layer)) return {quantization, dtype};
  quant::QuantizationOptions none;
  none.method = "none";
  return {none, at::kFloat};
}

// Whether a module's weight lies in the model's file as it will be kept.
bool lies_in_file(const WeightSource& source, const quant::QuantizationOptions& quantization,
                  at::ScalarType dtype, const std::string& module, const LinearSpec& linear) {
  const io::TensorView* view = source.stored(module + ".weight");
  if (view == nullptr || linear.stored_by_inputs) return false;
  if (!source.packing(module).empty()) return true;
  const bool dense = quantization.method == "none" || quantization.method == "as_stored";
  return dense && view->dtype == quant::file_dtype(dtype);
}

// The same of embedding and head.
int64_t outer_bytes_to_write(const WeightSource& source, at::ScalarType dtype,
                             const Placement& placement) {
  const Architecture& a = source.architecture();
  const auto bytes_of = [&](Home home, const TensorNames& names) {
    const io::TensorView* view = source.stored(names.hugging_face + ".weight");
    const bool stored = view != nullptr && view->dtype == quant::file_dtype(dtype);
    if (home != Home::kDisk || stored) return int64_t{0};
    return a.vocab_size * a.embedding.width * static_cast<int64_t>(c10::elementSize(dtype));
  };
  return bytes_of(placement.embedding, a.embedding.names) +
         (a.tied_embeddings ? 0 : bytes_of(placement.head, a.head.names));
}

// What blocks on disk will take in the file that is written for them. What GGUF blocks take that
// stay as they are is not known here and left out.
int64_t bytes_to_write(const WeightSource& source, const quant::QuantizationOptions& quantization,
                       at::ScalarType dtype, const Placement& placement) {
  const Architecture& a = source.architecture();
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < a.num_layers(); ++layer) {
    if (placement.of(layer) != Home::kDisk) continue;
    const Kept kept = kept_as(placement, layer, quantization, dtype);
    a.block(layer).for_each_linear([&](const LinearSpec& linear) {
      const std::string module = a.module(layer, linear.names);
      const bool packed =
          kept.quantization.method == "as_stored" && !source.packing(module).empty();
      if (packed || lies_in_file(source, kept.quantization, kept.dtype, module, linear)) return;
      bytes += quant::frozen_size(quant::WeightShape::matrix(linear.out, linear.in), kept.dtype,
                                  quantization_of_layer(linear, kept.quantization), module)
                   .bytes;
    });
  }
  return bytes + outer_bytes_to_write(source, dtype, placement);
}

}  // namespace

BlockOffload::BlockOffload(const WeightSource& source, const ModelOptions& options,
                           const quant::QuantizationOptions& quantization, at::ScalarType dtype,
                           at::Device device, at::ScalarType compute, const Placement& placement,
                           const std::shared_ptr<quant::ShardGroup>& ranks)
    : source_(source),
      placement_(placement),
      device_(device),
      needs_host_products_(device.is_cuda() || compute != at::kFloat) {
  if (!placement.elsewhere()) return;
  if (placement.on_disk()) {
    if (options.offload_dir.empty())
      throw ConfigError("model.offload_dir must name a directory for what lies on disk");
    file_ = std::make_shared<io::SpillFile>(options.offload_dir,
                                            bytes_to_write(source, quantization, dtype, placement));
  }
  offload_ = std::make_shared<quant::Offload>(device, file_, ranks);
  if (device.is_cuda()) on_cpu_ = std::make_shared<quant::Offload>(at::kCPU, file_);
}

bool BlockOffload::keep(at::Tensor& tensor, Home home, const std::string& name) {
  const bool on_disk = home == Home::kDisk;
  const io::TensorView* view =
      on_disk ? quant::holding_the_same(tensor, source_.stored(name + ".weight")) : nullptr;
  if (file_) file_->begin_page();
  offload_->keep(tensor, home, view ? view->bytes : std::span<const std::byte>(),
                 view ? view->owner : nullptr);
  return on_disk;
}

void BlockOffload::place_outer(CausalLm& model) {
  if (placement_.on_ranks()) model.add_outer_to(hasher_);
  const Architecture& a = model.architecture();
  lora::Embedding& embedding = model.embedding;
  if (placement_.embedding != Home::kDevice) {
    embedding.device = device_;
    embedding.in_file =
        keep(embedding.weight, placement_.embedding, a.embedding.names.hugging_face);
  }
  if (placement_.head == Home::kDevice) return;
  const std::string& name = a.head.names.hugging_face;
  std::unique_ptr<quant::FrozenWeight>& head = model.head.layers().front().base;
  if (head->traits().kind != quant::WeightKind::kStored)
    fail<ConfigError>(
        "model.device_map.{}: the file holds the head as {}, which is decoded as a whole; leave it "
        "on train.device",
        name, head->format());
  at::Tensor matrix = a.tied_embeddings ? embedding.weight : *head->parts().front();
  const bool in_file = a.tied_embeddings ? embedding.in_file : keep(matrix, placement_.head, name);
  head = std::make_unique<quant::PanelWeight>(matrix, device_, in_file);
}

void BlockOffload::begin_block(int64_t layer) {
  layer_ = layer;
  if (file_) file_->begin_page();
}

void BlockOffload::end_block(CausalLm& model) {
  if (placement_.on_ranks()) {
    model.add_layer_to(layer_, hasher_);
    model.hash_when_read = hasher_.hex();
  }
  if (placement_.of(layer_) == Home::kRanks)
    offload_->deal(layer_);
  else if (offload_)
    offload_->leave(layer_);
  if (on_cpu_) on_cpu_->leave(layer_);
  layer_ = -1;
}

quant::FindInFile BlockOffload::in_files_of(const std::string& module) const {
  return [this, module](const std::string& name) { return source_.stored(module + "." + name); };
}

std::unique_ptr<quant::FrozenWeight> BlockOffload::placed(
    const std::string& module, std::unique_ptr<quant::FrozenWeight> weight) {
  const Home home = layer_ < 0 ? Home::kDevice : placement_.of(layer_);
  const bool beside_gpu = in_float32() && device_.is_cuda();  // where it is used, too
  if (home == Home::kDisk || home == Home::kRanks || (home == Home::kHost && !beside_gpu))
    weight = std::make_unique<quant::OffloadedWeight>(
        std::move(weight), beside_gpu ? on_cpu_ : offload_, layer_, home, in_files_of(module));
  if (in_float32() && needs_host_products_)
    weight = std::make_unique<quant::HostWeight>(std::move(weight), device_);
  return weight;
}

}  // namespace qlora::model
