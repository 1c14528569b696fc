// PEFT's adapter_config.json: the lora section of a recipe for a new adapter of the same form.
#include "recipes/import/conversions.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {

constexpr const char* kForms = "adapters are LoRA, rsLoRA and DoRA here";

void read_peft_type(const Found& found, const ToolKey&, Draft& draft) {
  if (found.value.text == "LORA") return draft.without_effect(found, "adapters are LoRA");
  draft.refuse(found, kForms);
}

// true, false and names.
void read_init(const Found& found, const ToolKey& key, Draft& draft) {
  const std::string name = text(&found.value);
  if (is_true(&found.value)) return draft.set(found, key.here, Node::string("default"));
  if (is_off(found.value))
    return draft.refuse(found,
                        "an adapter that does not start at zero is made by lora.init: loftq, "
                        "pissa or olora");
  if (name.starts_with("pissa_niter_")) return draft.set(found, key.here, Node::string("pissa"));
  draft.set(found, key.here, Node::string(name));
}

void read_loftq(const Found& found, const ToolKey& key, Draft& draft) {
  const Node* iterations = in_file(found.value, "loftq_iter");
  if (is_off(found.value)) return draft.without_effect(found, "it is empty");
  if (text(beside(found, "init_lora_weights")) != "loftq")
    return draft.without_effect(found, "init_lora_weights is not loftq");
  draft.set(found, key.here,
            Node::map({Node::entry("iterations", Node::scalar(text(iterations, "1")))}));
}

std::vector<ToolKey> lora_keys() {
  ToolKey loftq = read_by("loftq_config", "lora.loftq", "beside lora.init: loftq", read_loftq);
  loftq.value = "{iterations: 1}";
  return {same("r", "lora.rank"),
          same("lora_alpha", "lora.alpha"),
          same("lora_dropout", "lora.dropout"),
          read_by("target_modules", "lora.targets", "",
                  [](const Found& found, const ToolKey& key, Draft& draft) {
                    // A text is a pattern, which may have commas.
                    draft.set(found, key.here, plain(found.value));
                  }),
          same("target_parameters", "lora.target_parameters"),
          same("exclude_modules", "lora.exclude_modules"),
          same("layers_to_transform", "lora.layers_to_transform"),
          same("rank_pattern", "lora.rank_pattern"),
          same("alpha_pattern", "lora.alpha_pattern"),
          same("modules_to_save", "lora.modules_to_save"),
          same("trainable_token_indices", "lora.trainable_token_indices"),
          same("ensure_weight_tying", "lora.ensure_weight_tying"),
          same("bias", "lora.bias"),
          same("use_rslora", "lora.use_rslora"),
          same("use_dora", "lora.use_dora"),
          read_by("init_lora_weights", "lora.init", "", read_init),
          loftq};
}

void finish(const Node& root, Draft& draft) {
  if (in_file(root, "peft_type"))
    draft.warn(
        "the recipe begins a new adapter of this form; lora.from_adapter: DIRECTORY goes on "
        "with the old one, whose rank, alpha and targets then hold by themselves");
}

}  // namespace

Tool peft_tool() {
  Tool tool{"peft", "PEFT", lora_keys(), {}, finish};
  add_missing(tool.keys, model_path("base_model_name_or_path", "revision"));
  add_missing(tool.keys,
              {read_by("peft_type", "", "adapters are LoRA", read_peft_type),
               idle("task_type", "the model's architecture says it"),
               idle("inference_mode", "`qlora train` trains"),
               idle("auto_mapping", "the model's architecture says it"),
               idle("peft_version", "it says which PEFT wrote the file"),
               idle("fan_in_fan_out", "how a layer's weight lies is known of its family"),
               refused("layers_pattern", "lora.layers_to_transform counts decoder layers"),
               refused("layer_replication", "layers are not repeated")});
  add_missing(tool.keys, refused_all({"megatron_config", "parallelism*"}, kNoSharding));
  add_missing(tool.keys, idle_all({"megatron_core", "qalora_group_size", "runtime_config"},
                                  "it acts only beside keys that are refused"));
  add_missing(tool.keys,
              refused_all({"eva_config", "corda_config", "lora_ga_config", "use_qalora",
                           "use_bdlora", "lora_bias", "arrow_config", "alora_invocation_tokens",
                           "velora_config", "kasa_config", "monteclora_config"},
                          kForms));
  tool.defaults = {{"lora.rank", "8"},
                   {"lora.alpha", "8"},
                   {"lora.targets", "[peft-default]"},
                   {"output.dir", "imported-run"}};
  return tool;
}

}  // namespace qlora::recipes
