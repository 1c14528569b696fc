#include "recipes/models/adapter_on_base.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "lora/targets.h"
#include "lora/weight_init.h"
#include "model/architecture.h"
#include "model/model_header.h"
#include "quant/make_frozen_weight.h"
#include "quant/offload/offloaded_weight.h"

namespace qlora::recipes {
namespace {

lora::BaseView view_of(model::ModelHeader& header) {
  const model::Architecture& a = header.architecture;
  lora::BaseView view;
  view.place = header.place;
  view.linear = a.linear_modules();
  view.names = a.embedding_names();
  view.linear.push_back(view.names.head);
  view.others = {view.names.embedding};
  for_each_norm(a, [&view](const std::string& module, const model::NormSpec&) {
    view.others.push_back(module);
  });
  for_each_linear(a, [&view](const std::string&, const model::LinearSpec& linear) {
    view.has_conv1d |= linear.stored_by_inputs;
  });
  view.vocab_size = a.vocab_size;
  view.tied = a.tied_embeddings;
  view.weight = [&header](const std::string& module) {
    if (!header.weights) return at::Tensor();
    const model::Architecture& of = header.architecture;
    const lora::EmbeddingNames names = of.embedding_names();
    const bool tied_head = module == names.head && of.tied_embeddings;
    return header.weights->read((tied_head ? names.embedding : module) + ".weight",
                                {of.vocab_size, of.embedding.width}, header.weights->dtype());
  };
  return view;
}

[[noreturn]] void refuse(const std::string& adapter, const std::string& reason) {
  fail<ConfigError>(
      "{}/adapter_config.json.init_lora_weights: the adapter belongs to the base less the product "
      "it began with, {}",
      adapter, reason);
}

// The layer's weight less the product, in the format that it has.
std::unique_ptr<quant::FrozenWeight> residual(const std::string& adapter, const std::string& init,
                                              const lora::LoraOptions& options,
                                              const quant::QuantizationOptions& quantization,
                                              const lora::LoraLinear& layer) {
  const quant::FrozenWeight& base = *layer.base;
  const bool dense = base.traits().kind == quant::WeightKind::kStored;
  if (!dense && init == "pissa")
    refuse(adapter, fmt::format("which PEFT finds in 16-bit weights only, and {} is {}; leave the "
                                "base unquantized (quantization.method: none)",
                                layer.name, base.format()));
  if (!dense && quantization.method == "as_stored")
    refuse(adapter, fmt::format("and {} is stored as {}; give the base in 16 bits", layer.name,
                                base.format()));
  at::Tensor values = at::empty({base.out_features(), base.in_features()},
                                at::TensorOptions().dtype(at::kFloat).device(base.device()));
  base.dequantize_rows(0, 0, base.out_features(), values);
  values = lora::without_principal_part(options, init, values, layer.name);
  if (!dense) return quant::make_frozen_weight(values, quantization, layer.name);
  const at::ScalarType dtype = base.decoded_dtype(at::kFloat);
  return std::make_unique<quant::DenseWeight>(values.to(dtype).contiguous());
}

}  // namespace

lora::FittedAdapter fit_adapter(const std::string& adapter, const std::string& model_path) {
  model::ModelHeader header = model::read_model_header(model_path);
  return lora::fit_adapter(adapter, view_of(header));
}

void take_off_initial_product(const std::string& adapter, const lora::LoraOptions& fitted,
                              const quant::QuantizationOptions& quantization, BaseModel& base) {
  const std::string init = lora::initial_product_of(adapter);
  if (init.empty()) return;
  at::NoGradGuard no_grad;
  const model::Architecture& a = base.model->architecture();
  if (lora::is_target(fitted, a.head.names.hugging_face) && a.tied_embeddings)
    refuse(adapter, "and lm_head, one of target_modules, is tied to the embedding of this base");
  base.changed = true;  // also where a layer further on is refused
  int64_t count = 0;
  Progress progress("taking " + init + "'s product off the base", 0, "modules");
  for (lora::LinearGroup* group : base.model->parts().all_groups())
    for (lora::LoraLinear& layer : group->layers()) {
      if (!lora::is_target(fitted, layer.name)) continue;
      layer.base = quant::placed_as(
          *layer.base, residual(adapter, init, fitted.of_module(layer.name), quantization, layer));
      ++count;
      progress.advance();
    }
  log::info(
      "init_lora_weights {}: the product that the adapter began with is taken off {} weights of "
      "the base, as PEFT does",
      init, count);
}

void require_same_base(const std::string& adapter, const BaseModel& base) {
  const auto record = lora::read_adapter_base(adapter);
  if (!record || record->hash == base.record.hash) return;
  fail<ConfigError>(
      "{}: the adapter was trained on another base ({}, quantization {}, hash {}) than {} "
      "(quantization {}, hash {}); give that base, or remove qlora_base.json from the adapter to "
      "use it here",
      adapter, record->path, record->quantization.to_text(), record->hash, base.path,
      base.record.quantization.to_text(), base.record.hash);
}

}  // namespace qlora::recipes
