#include "tests/support/footprint_rows.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "io/safetensors.h"
#include "model/load.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"

namespace qlora::test {
using model::FootprintRow;

const FootprintRow& row_of(const std::vector<FootprintRow>& rows, const std::string& kind) {
  const auto of_kind = [&](const FootprintRow& row) { return row.kind == kind; };
  const auto count = std::ranges::count_if(rows, of_kind);
  check(count == 1, "there must be one row {}, found {}", kind, count);
  return *std::ranges::find_if(rows, of_kind);
}

std::vector<std::string> kinds_of(const std::vector<FootprintRow>& rows) {
  std::vector<std::string> kinds;
  for (const FootprintRow& row : rows) kinds.push_back(row.kind);
  return kinds;
}

BytesByKind bytes_of(const std::vector<FootprintRow>& rows) {
  BytesByKind bytes;
  for (const FootprintRow& row : rows) bytes[row.kind] += row.bytes;
  return bytes;
}

BytesByKind bytes_of(model::CausalLm& model) {
  BytesByKind bytes;
  const auto add = [&](const std::string& kind, const at::Tensor& tensor) {
    if (tensor.defined()) bytes[kind] += static_cast<int64_t>(tensor.nbytes());
  };
  for (const lora::LinearGroup* group : model.groups())
    for (const lora::LoraLinear& layer : group->layers()) {
      bytes[layer.name.substr(layer.name.rfind('.') + 1)] += layer.base->bytes();
      add("biases", layer.bias);
    }
  const lora::TrainableParts parts = model.parts();
  for (const auto& [name, norm] : parts.norms) {
    add("norms", norm->frozen);
    add("norms", norm->frozen_bias);
  }
  add("embedding", model.embedding.weight);
  add("positions", model.positions);
  for (const model::Block& layer : model.layers)
    for (const model::BranchWeights& branch : layer.branches) add("sinks", branch.sinks);
  for (const auto& [name, table] : model.relative_tables()) add("relative_attention_bias", table);
  const lora::LoraLinear& head = model.head.layers().front();
  if (!model.architecture().tied_embeddings) bytes["head"] += head.base->bytes();
  add("biases", head.bias);
  return bytes;
}

int64_t total_bytes(const std::vector<FootprintRow>& rows) {
  int64_t bytes = 0;
  for (const FootprintRow& row : rows) bytes += row.bytes;
  return bytes;
}

int64_t total_bytes(const std::vector<io::TensorView>& tensors) {
  int64_t bytes = 0;
  for (const io::TensorView& tensor : tensors) bytes += static_cast<int64_t>(tensor.bytes.size());
  return bytes;
}

quant::QuantizationOptions options_of(const std::string& method, bool double_quant) {
  quant::QuantizationOptions options;
  options.method = method;
  options.double_quant = double_quant;
  return options;
}

std::unique_ptr<model::CausalLm> loaded(model::WeightSource& source,
                                        const quant::QuantizationOptions& quantization,
                                        const model::ModelOptions& options) {
  return model::load_model(source, options, quantization, at::kCPU, at::kBFloat16);
}

std::vector<io::TensorView> in_a_file(const quant::NamedTensors& tensors) {
  const TempDir dir;
  quant::write_tensors(dir / "model.safetensors", tensors);
  return io::read_safetensors(dir / "model.safetensors").tensors;
}

std::vector<io::TensorView> in_a_file(const NamedShapes& shapes) {
  quant::NamedTensors tensors;
  for (const auto& [name, shape] : shapes)
    tensors.emplace_back(name, at::zeros(shape, at::kBFloat16));
  return in_a_file(tensors);
}

}  // namespace qlora::test
