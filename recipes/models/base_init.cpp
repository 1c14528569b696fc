#include "recipes/models/base_init.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "io/json_text.h"
#include "lora/targets.h"
#include "lora/weight_init.h"
#include "model/hub_cache.h"
#include "quant/make_frozen_weight.h"

namespace qlora::recipes {

void require_init_on_packed(const lora::LoraOptions& options, const std::string& module,
                            const std::string& format) {
  if (options.init != "loftq")
    fail<ConfigError>(
        "lora.init: {} needs 16-bit weights, and {} is stored as {}; give the original model and "
        "name a quantization.method",
        options.init, module, format);
  if (options.loftq.original.empty())
    fail<ConfigError>(
        "lora.loftq.original must name the 16-bit model: {} is stored as {}, which does not say "
        "what quantizing it lost",
        module, format);
  try {
    model::resolve_model_path(options.loftq.original);
  } catch (const ConfigError& error) {
    fail<ConfigError>("lora.loftq.original: {}", error.what());
  }
}

void BaseInit::keep(const std::string& module, lora::WeightInit& found) {
  rows_.push_back({module, found.plain_error, found.error, found.iteration});
  factors_.emplace(module, std::move(found.factors));
}

model::WeightMaker BaseInit::maker() {
  return [this](const std::string& module, const at::Tensor& weight) {
    // Of a weight that stays as it is LoftQ would make an adapter with A and B zero, which never
    // learns: it starts as by default.
    const bool loses_nothing =
        recipe_.lora.init == "loftq" && !quant::is_quantized(recipe_.quantization, module);
    if (loses_nothing || !lora::is_target(recipe_.lora, module))
      return quant::make_frozen_weight(weight, recipe_.quantization, module);
    lora::WeightInit found = lora::init_from_weight(
        recipe_.lora.of_module(module), weight, recipe_.quantization, module, recipe_.train.seed);
    changed_base_ = true;
    auto base = std::move(found.base);
    keep(module, found);
    return base;
  };
}

void BaseInit::add_packed_layers(model::CausalLm& model) {
  std::unique_ptr<model::WeightSource> original;
  Progress progress("lora.init " + recipe_.lora.init, 0, "modules");
  for (lora::LinearGroup* group : model.groups())
    for (lora::LoraLinear& layer : group->layers()) {
      if (factors_.contains(layer.name) || !lora::is_target(recipe_.lora, layer.name)) continue;
      // A router or another layer that is not quantized stays as it is; its adapter starts as by
      // default.
      if (layer.base->traits().kind == quant::WeightKind::kStored) continue;
      require_init_on_packed(recipe_.lora, layer.name, layer.base->format());
      if (!original)
        original = model::open_weights(model::resolve_model_path(recipe_.lora.loftq.original));
      const at::Tensor weight = original
                                    ->read(layer.name + ".weight",
                                           {layer.out_features(), layer.in_features()}, at::kFloat)
                                    .to(layer.base->device());
      lora::WeightInit found = lora::init_from_original(
          recipe_.lora.of_module(layer.name), weight, *layer.base, layer.name, recipe_.train.seed);
      keep(layer.name, found);
      progress.advance();
    }
  if (!original && recipe_.lora.init == "loftq" && !recipe_.lora.loftq.original.empty())
    log::warning(
        "lora.loftq.original changes nothing: model.path itself holds the 16-bit weights; leave it "
        "out");
}

void BaseInit::report() const {
  if (rows_.empty()) return;
  double before = 0, after = 0;
  for (const Row& row : rows_) {
    before += row.plain_error;
    after += row.error;
  }
  const auto count = static_cast<double>(rows_.size());
  const auto most = std::ranges::max_element(rows_, {}, &Row::error);
  log::info(
      "lora.init {}: {} layers, relative error of the weights {:.5f} -> {:.5f} on average; {} "
      "has the largest, {:.5f} -> {:.5f}",
      recipe_.lora.init, rows_.size(), before / count, after / count, most->module,
      most->plain_error, most->error);
}

std::string BaseInit::table_json() const {
  nlohmann::ordered_json table = nlohmann::ordered_json::array();
  for (const Row& row : rows_)
    table.push_back({{"module", row.module},
                     {"relative_error_quantized", row.plain_error},
                     {"relative_error", row.error},
                     {"iteration", row.iteration}});
  return io::json_text(table, 2) + "\n";
}

}  // namespace qlora::recipes
