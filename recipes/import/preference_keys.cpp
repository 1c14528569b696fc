// Learning from preferences in the other tools, with the keys of train.objective.
#include <fmt/format.h>

#include "recipes/import/conversions.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {

constexpr const char* kReference = "the reference is the model as it was before the run";
constexpr const char* kObjectives =
    "train.objective is sft, dpo or orpo; this way of learning is not had";

void set_objective(const Found& found, const std::string& objective, Draft& draft) {
  draft.set(found, "train.objective", Node::string(objective));
}

// Words of theirs that are ours: sigmoid, hinge and ipo are losses of dpo.
void read_loss(const Found& found, const std::string& loss, Draft& draft) {
  if (loss == "orpo") return set_objective(found, "orpo", draft);
  draft.set(found, "train.loss_type", Node::string(loss));
}

void read_axolotl_rl(const Found& found, const ToolKey&, Draft& draft) {
  const std::string way = found.value.text;
  if (way == "dpo" || way == "orpo") return set_objective(found, way, draft);
  if (way != "ipo") return draft.refuse(found, kObjectives);
  set_objective(found, "dpo", draft);
  draft.set(found, "train.loss_type", Node::string("ipo"));
}

void read_one_loss(const Found& found, const ToolKey&, Draft& draft) {
  const std::vector<std::string> losses = texts(found.value);
  if (losses.size() != 1) return draft.refuse(found, "a step has one loss here");
  read_loss(found, losses[0], draft);
}

void read_stage(const Found& found, const ToolKey&, Draft& draft) {
  const std::string stage = found.value.text;
  if (stage == "sft" || stage == "pt") return set_objective(found, "sft", draft);
  if (stage != "dpo") return draft.refuse(found, kObjectives);
  set_objective(found, text(beside(found, "pref_loss")) == "orpo" ? "orpo" : "dpo", draft);
}

// SFTConfig's loss_type names ways to compute one loss; DPOConfig's name losses.
void read_trl_loss(const Found& found, const ToolKey& key, Draft& draft) {
  const std::vector<std::string> losses = texts(found.value);
  if (losses.size() == 1 && (losses[0] == "nll" || losses[0] == "chunked_nll"))
    return draft.without_effect(found, kFused);
  if (losses.size() == 1 && losses[0] == "dft") return draft.refuse(found, kObjectives);
  set_objective(found, "dpo", draft);
  read_one_loss(found, key, draft);
}

void read_trl_beta(const Found& found, const ToolKey& key, Draft& draft) {
  set_objective(found, "dpo", draft);
  draft.set(found, key.here, plain(found.value));
  draft.warn("beta is a key of TRL's DPO and ORPO; the recipe says train.objective: dpo");
}

void read_torchtune_loss(const Found& found, const ToolKey&, Draft& draft) {
  const std::string name = found.value.text.substr(found.value.text.rfind('.') + 1);
  if (name == "DPOLoss") return set_objective(found, "dpo", draft);
  if (name.find("CrossEntropy") != std::string::npos || name.starts_with("CEWith"))
    return draft.without_effect(found, kFused);
  draft.refuse(found, kObjectives);
}

}  // namespace

std::vector<ToolKey> trl_preference_keys() {
  std::vector<ToolKey> keys = {read_by("beta", "train.beta", "", read_trl_beta),
                               read_by("loss_type", "train.loss_type", "", read_trl_loss),
                               same("label_smoothing", "train.label_smoothing"),
                               idle("disable_dropout", "lora.dropout is the only dropout"),
                               idle("padding_value", kNoPadding),
                               refused("ref_model_*", kReference),
                               refused("sync_ref_model", kReference)};
  add_missing(keys,
              idle_all({"precompute_ref_log_probs", "precompute_ref_batch_size"}, kReference));
  add_missing(
      keys, refused_all({"loss_weights", "ld_alpha", "f_divergence_type", "f_alpha_divergence_coef",
                         "use_weighting", "discopop_tau", "rpo_alpha", "max_prompt_length",
                         "max_completion_length", "generate_during_eval"},
                        "DPO and ORPO have train.beta, loss_type and label_smoothing here"));
  return keys;
}

std::vector<ToolKey> axolotl_preference_keys() {
  std::vector<ToolKey> keys = {
      read_by("rl", "train.objective", "dpo or orpo; ipo is dpo with train.loss_type: ipo",
              read_axolotl_rl),
      same("rl_beta", "train.beta"),
      same("dpo_beta", "train.beta"),
      same("orpo_alpha", "train.beta"),
      same("dpo_label_smoothing", "train.label_smoothing"),
      read_by("dpo_loss_type", "train.loss_type", "", read_one_loss),
      idle("precompute_ref_log_probs", kReference),
      idle("dpo_use_logits_to_keep", kFused),
      idle("dpo_use_liger_kernel", kFused),
      idle("dpo_padding_free", kNoPadding)};
  add_missing(keys, refused_all({"dpo_use_weighting", "dpo_loss_weights", "dpo_norm_loss",
                                 "dpo_generate_during_eval", "rpo_alpha", "max_prompt_len", "trl",
                                 "trl.*", "ebft", "ebft.*", "vllm", "vllm.*", "simpo_gamma",
                                 "cpo_alpha", "kto_*", "reward_model", "process_reward_model",
                                 "center_rewards_coefficient", "num_labels"},
                                kObjectives));
  return keys;
}

std::vector<ToolKey> llama_factory_preference_keys() {
  std::vector<ToolKey> keys = {
      read_by("stage", "train.objective", "dpo; orpo is pref_loss there", read_stage),
      read_by("pref_loss", "train.loss_type", "orpo is train.objective: orpo", read_one_loss),
      same("pref_beta", "train.beta"),
      same("dpo_label_smoothing", "train.label_smoothing"),
      idle("ref_model", kReference),
      idle("ref_model_*", kReference)};
  add_missing(keys, refused_all({"pref_ftx", "pref_bco_weight", "kto_*", "simpo_gamma", "ppo_*",
                                 "reward_model", "reward_model_*", "ld_alpha"},
                                kObjectives));
  return keys;
}

std::vector<ToolKey> torchtune_preference_keys() {
  return {read_by("loss._component_", "train.objective", "dpo", read_torchtune_loss),
          same("loss.beta", "train.beta"), same("loss.label_smoothing", "train.label_smoothing"),
          idle("loss.num_output_chunks", kFused)};
}

}  // namespace qlora::recipes
