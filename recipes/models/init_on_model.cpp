#include "recipes/models/init_on_model.h"

#include <string>

#include "base/error.h"
#include "base/warn_once.h"
#include "lora/targets.h"
#include "model/architecture.h"
#include "recipes/models/base_init.h"
#include "recipes/plan/plan.h"

namespace qlora::recipes {

void require_targets_of_init(const Recipe& recipe, const model::ModelHeader& header) {
  const model::Architecture& a = header.architecture;
  const std::string& head = a.head.names.hugging_face;
  if (!lora::is_target(recipe.lora, head)) return;
  bool others = false;
  for_each_linear(a, [&](const std::string& module, const model::LinearSpec&) {
    others = others || (module != head && lora::is_target(recipe.lora, module));
  });
  if (!others)
    fail<ConfigError>(
        "lora.init: {} is for the layers of blocks, and lora.targets has {} alone, whose adapter "
        "starts as with lora.init default; leave lora.init out",
        recipe.lora.init, head);
  log::warning_once("lora.init {}: the adapter of {} starts as with lora.init default",
                    recipe.lora.init, head);
}

void require_weights_of_init(const Recipe& recipe, const model::ModelHeader& header) {
  const bool loftq = recipe.lora.init == "loftq";
  const bool keeps_packed = header.stored || recipe.quantization.method == "as_stored";
  const auto weight = planned_weights(recipe, header);
  bool any = false;
  for_each_linear(
      header.architecture, [&](const std::string& module, const model::LinearSpec& linear) {
        if (module == header.architecture.head.names.hugging_face ||
            !lora::is_target(recipe.lora, module) ||
            weight(module, linear).traits.kind == quant::WeightKind::kStored)
          return;
        any = true;
        const std::string packing = header.weights ? header.weights->packing(module) : "";
        if (keeps_packed && !packing.empty()) require_init_on_packed(recipe.lora, module, packing);
      });
  if (loftq && !any)
    throw ConfigError(
        "lora.init: loftq begins with what quantizing the weights has lost, and none that gets "
        "an adapter is quantized; name a quantization.method such as nf4 (skip_modules must "
        "leave targets over), or another lora.init");
}

}  // namespace qlora::recipes
