#include "recipes/models/kept_packing.h"

#include <filesystem>

#include "base/error.h"
#include "model/expert_tensors.h"

namespace qlora::recipes {
namespace {

// How a module stays packed ("GPTQ", "Q4_1"); empty: it does not, or its weights are decoded.
// Without the files every linear layer of the blocks is taken to be packed.
std::string kept_packing(const Recipe& recipe, const model::ModelHeader& header,
                         const std::string& module, bool never_quantized) {
  const bool as_stored = recipe.quantization.method == "as_stored";
  if (!header.stored && !as_stored) return "";
  if (header.mxfp4_experts && model::expert_tensor(header.architecture, module + ".weight"))
    return "MXFP4";
  if (header.weights) return header.weights->packing(module);
  return header.stored && !never_quantized ? header.stored->name() : "";
}

// Of the file's head, unless it is the embedding.
std::string kept_packing_of_head(const Recipe& recipe, const model::ModelHeader& header) {
  const model::Architecture& a = header.architecture;
  if (a.tied_embeddings || !header.weights) return "";
  return kept_packing(recipe, header, a.head.names.hugging_face, false);
}

}  // namespace

void require_writable_base(const Recipe& recipe, const model::ModelHeader& header,
                           const std::string& key) {
  if (header.stored && header.stored->options()) return;  // bitsandbytes' own
  const std::string advice =
      header.stored ? "leave it out" : "name a quantization.method, or leave it out";
  const auto require_not_packed = [&](const std::string& module, const std::string& packing) {
    if (!packing.empty())
      fail<ConfigError>(
          "{}: the run would write its base in bitsandbytes' layout, which has no place for {}, "
          "stored as {}; {}",
          key, module, packing, advice);
  };
  for_each_linear(
      header.architecture, [&](const std::string& module, const model::LinearSpec& linear) {
        require_not_packed(module, kept_packing(recipe, header, module, linear.never_quantized));
      });
  require_not_packed(header.architecture.head.names.hugging_face,
                     kept_packing_of_head(recipe, header));
}

void require_movable_head(const Recipe& recipe, const model::ModelHeader& header,
                          const model::Placement& placement) {
  const std::string packing = kept_packing_of_head(recipe, header);
  if (placement.head != quant::Home::kDevice && !packing.empty())
    fail<ConfigError>(
        "model.device_map.{}: the file holds the head as {}, which is decoded as a whole; leave it "
        "on train.device",
        header.architecture.head.names.hugging_face, packing);
}

}  // namespace qlora::recipes
