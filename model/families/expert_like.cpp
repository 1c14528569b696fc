#include "model/families/expert_like.h"

#include "base/error.h"
#include "base/warn_once.h"
#include "model/families/layer_kinds.h"

namespace qlora::model {
namespace {

// What is added to the loss, or to the routers' inputs, in training from scratch.
void note_training_keys(ConfigReader& config) {
  config.note_read({"router_aux_loss_coef"});
  if (config.boolean({{"output_router_logits"}}, false))
    log::warning_once("{}: the loss that balances the experts (output_router_logits) is not added",
                      config.place());
  if (config.number({{"router_jitter_noise"}}, 0) != 0)
    log::warning_once("{}: the routers are trained without noise (router_jitter_noise)",
                      config.place());
}

}  // namespace

ExpertSizes read_expert_sizes(ConfigReader& config, const LlamaSizes& sizes,
                              const ExpertDefaults& defaults) {
  note_training_keys(config);
  const ConfigKey count{{"num_local_experts", "num_experts"}, "expert_count", true};
  const ConfigKey active{{"num_experts_per_tok"}, "expert_used_count", true};
  const ConfigKey inner{{"moe_intermediate_size"}, "expert_feed_forward_length"};
  ExpertSizes experts;
  experts.routing = {.experts = config.size(count, defaults.experts),
                     .active = config.size(active, defaults.active),
                     .renormalise = defaults.renormalise,
                     .weights_in_fp32 = defaults.weights_in_fp32};
  if (defaults.reads_norm_topk && config.json())
    experts.routing.renormalise = config.boolean({{"norm_topk_prob"}}, false);
  experts.inner = defaults.inner > 0 && config.json()
                      ? config.size(inner, defaults.inner)
                      : config.integer(inner, sizes.intermediate_size);
  constexpr int64_t kMostExperts = 4096;
  const RoutingRule& rule = experts.routing;
  if (rule.experts < 1 || rule.experts > kMostExperts)
    fail<FormatError>("{} must be between 1 and {}, found {}", config.place_of(count), kMostExperts,
                      rule.experts);
  if (rule.active < 1 || rule.active > rule.experts)
    fail<FormatError>("{} must be between 1 and the {} experts, found {}", config.place_of(active),
                      rule.experts, rule.active);
  if (experts.inner < 1)
    fail<FormatError>("{} must be above 0, found {}", config.place_of(inner), experts.inner);
  return experts;
}

ExpertsSpec experts_of(const LlamaSizes& sizes, const ExpertSizes& experts) {
  ExpertsSpec spec;
  spec.routing = experts.routing;
  spec.inner = experts.inner;
  spec.activation.kind = sizes.activation;
  spec.router = {{"mlp.gate", "ffn_gate_inp"}, experts.routing.experts, sizes.hidden_size};
  spec.router.never_quantized = true;
  spec.gate_up = {{"mlp.experts.{}.gate_up_proj", ""}, 2 * experts.inner, sizes.hidden_size};
  spec.down = {{"mlp.experts.{}.down_proj", ""}, sizes.hidden_size, experts.inner};
  spec.files = {.gate = "mlp.experts.{}.gate_proj",
                .up = "mlp.experts.{}.up_proj",
                .down = "mlp.experts.{}.down_proj",
                .stacked_gate_up = "mlp.experts.gate_up_proj",
                .stacked_down = "mlp.experts.down_proj"};
  return spec;
}

void use_experts(Architecture& architecture, const ExpertsSpec& experts) {
  use_experts(architecture, experts,
              std::vector<bool>(static_cast<size_t>(architecture.num_layers()), true));
}

void use_experts(Architecture& architecture, const ExpertsSpec& experts,
                 const std::vector<bool>& layers) {
  edit_layers(architecture, layers,
              [&experts](BlockSpec& block) { block.mlp_branch().mixer = experts; });
}

}  // namespace qlora::model
