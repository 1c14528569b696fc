#include "export/gguf_adapter.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "export/gguf_origin.h"
#include "io/gguf.h"
#include "lora/expert_names.h"
#include "model/gguf_description.h"
#include "model/gguf_names.h"
#include "model/gguf_rows.h"
#include "model/read_tensor.h"
#include "quant/gguf/gguf_quantize.h"

namespace qlora::exporting {
namespace {

constexpr const char* kHint =
    "export --format gguf, which merges, or --format adapter, which PEFT and vLLM load";

struct Factors {
  const lora::LoraLinear* layer;
  model::GgufTensor stored;  // of the matrix
};

std::vector<Factors> factors_of(const model::CausalLm& model,
                                const model::GgufDescription& description) {
  const model::GgufNames names(description.model);
  std::vector<Factors> all;
  const auto add = [&](const lora::LinearGroup& group) {
    for (const lora::LoraLinear& layer : group.layers()) {
      if (!layer.adapter) continue;
      if (lora::expert_name(layer.name))
        fail<ConfigError>("--format gguf-lora: {} is an expert's matrix; {}", layer.name, kHint);
      all.push_back({&layer, names.of_tensor(layer.name + ".weight")});
    }
  };
  for (const lora::LinearGroup* group : model.groups()) add(*group);
  if (model.architecture().tied_embeddings && model.head.layers().front().adapter)
    fail<ConfigError>("--format gguf-lora: the head that is adapted is the embedding, too; {}",
                      kHint);
  if (description.head_factor != 1 && model.head.layers().front().adapter)
    fail<ConfigError>(
        "--format gguf-lora: the head is adapted, and llama.cpp does not scale what it gives; {}",
        kHint);
  add(model.head);
  return all;
}

void require_low_rank_alone(const lora::AdapterSet& adapters) {
  for (const lora::AdapterTensor& tensor : adapters.tensors())
    if (!tensor.name.ends_with(".lora_A.weight") && !tensor.name.ends_with(".lora_B.weight"))
      fail<ConfigError>("--format gguf-lora: such a file has no place for {}; {}", tensor.name,
                        kHint);
}

// The one alpha of all layers.
double alpha_of(const std::vector<Factors>& factors) {
  const auto alpha = [](const Factors& f) {
    return f.layer->adapter->scaling * static_cast<double>(f.layer->adapter->rank);
  };
  for (const Factors& f : factors)
    if (std::abs(alpha(f) - alpha(factors.front())) > 1e-6 * std::abs(alpha(factors.front())))
      fail<ConfigError>(
          "--format gguf-lora: such a file has one alpha; {} has {} and {} has {}; {}",
          factors.front().layer->name, alpha(factors.front()), f.layer->name, alpha(f), kHint);
  return alpha(factors.front());
}

io::TensorView header_of(const std::string& name, const at::Tensor& value, io::DType dtype) {
  io::TensorView header;
  header.name = name;
  header.shape = value.sizes().vec();
  header.dtype = dtype;
  return header;
}

void write(io::GgufWriter& writer, const io::TensorView& header, const at::Tensor& value) {
  const at::Tensor floats = value.to(at::kFloat).cpu().contiguous();
  std::vector<std::byte> bytes(
      static_cast<size_t>(floats.numel() * io::bytes_per_block(header.dtype)));
  quant::quantize_gguf_blocks(header.dtype, floats.const_data_ptr<float>(), floats.numel(),
                              bytes.data());
  writer.write(header.name, bytes);
}

}  // namespace

void write_gguf_adapter(const std::string& path, const model::CausalLm& model,
                        const lora::AdapterSet& adapters, const std::string& base,
                        const GgufType& type) {
  at::NoGradGuard no_grad;
  if (type.is_quantized())
    fail<ConfigError>("--format gguf-lora: --type must be f32, f16 or bf16, found '{}'", type.name);
  require_low_rank_alone(adapters);
  const model::GgufDescription description = model::describe_for_gguf(model.architecture());
  const std::vector<Factors> factors = factors_of(model, description);
  check(!factors.empty(), "an adapter has adapted layers");
  model::GgufMetadata metadata = {{"general.architecture", description.architecture},
                                  {"general.type", std::string("adapter")},
                                  {"general.file_type", static_cast<uint64_t>(type.number)},
                                  {"adapter.type", std::string("lora")},
                                  {"adapter.lora.alpha", static_cast<float>(alpha_of(factors))}};
  const model::GgufMetadata names = gguf_origin(base);
  metadata.insert(metadata.end(), names.begin(), names.end());
  std::vector<io::TensorView> headers;
  for (const auto& [layer, stored] : factors) {
    headers.push_back(header_of(stored.name + ".lora_a", layer->adapter->a, type.dtype));
    headers.push_back(header_of(stored.name + ".lora_b", layer->adapter->b, type.dtype));
  }
  io::GgufWriter writer(path, metadata, headers);
  for (size_t i = 0; i < factors.size(); ++i) {
    const auto& [layer, stored] = factors[i];
    write(writer, headers[2 * i], layer->adapter->a);
    write(writer, headers[2 * i + 1], model::rows_to_gguf(layer->adapter->b, stored));
  }
  writer.finish();
}

void read_gguf_adapter(const std::string& path, model::CausalLm& model) {
  at::NoGradGuard no_grad;
  const io::GgufFile file(path);
  const model::GgufDescription description = model::describe_for_gguf(model.architecture());
  const auto read = [&file](const std::string& name, const at::Tensor& slot) {
    const io::TensorView* view = file.find(name);
    if (!view) fail<FormatError>("{}: there must be a tensor {}", file.path(), name);
    return model::read_tensor(*view, slot.sizes().vec(), at::kFloat);
  };
  for (const auto& [layer, stored] : factors_of(model, description)) {
    at::Tensor a = layer->adapter->a, b = layer->adapter->b;
    a.copy_(read(stored.name + ".lora_a", a));
    b.copy_(model::rows_from_gguf(read(stored.name + ".lora_b", b), stored));
  }
}

}  // namespace qlora::exporting
