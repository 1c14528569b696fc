// Granite 3 (IBM 2024): Llama's block with a multiplier for the embedding, the scores, what each
// branch adds, and the logits.
#include "base/error.h"
#include "model/families/families.h"
#include "model/families/llama_like.h"

namespace qlora::model {
namespace {

Architecture granite(ConfigReader& config) {
  Architecture a = llama_like("granite", read_llama_sizes(config));
  keep_rotary_pairs(a);
  BlockSpec& block = a.decoder.kinds[0];
  a.embedding.multiplier = config.number({{"embedding_multiplier"}, "embedding_scale"}, 1);
  const double residual = config.number({{"residual_multiplier"}, "residual_scale"}, 1);
  for (Branch& branch : block.branches) branch.multiplier = residual;
  block.attention().shape.scale =
      static_cast<float>(config.number({{"attention_multiplier"}, "attention.scale"}, 1));
  const ConfigKey logits{{"logits_scaling"}, "logit_scale"};
  const double divisor = config.number(logits, 1);
  if (!(divisor > 0))
    fail<FormatError>("{} must be above 0, found {}", config.place_of(logits), divisor);
  a.logit_multiplier = 1 / divisor;
  return a;
}

}  // namespace

Family granite_family() {
  return {.name = "granite",
          .model_types = {"granite"},
          .gguf_architectures = {"granite"},
          .read = granite};
}

}  // namespace qlora::model
