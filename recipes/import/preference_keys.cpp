// Learning from preferences in the other tools, with the keys of train.objective.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "recipes/import/conversions.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {

constexpr const char* kReference = "the reference is the model as it was before the run";
constexpr const char* kOfPairs = "DPO and ORPO have train.beta, loss_type and label_smoothing here";
constexpr const char* kOneLength =
    "prompt and answer together may have data.sequence_length tokens";
constexpr const char* kObjectives =
    "train.objective is sft, dpo or orpo; this way of learning is not had";

// Of TRL's DPOConfig, now or earlier, and of none for ORPO.
constexpr const char* kDpoKeys[] = {"label_smoothing",
                                    "precompute_ref_log_probs",
                                    "precompute_ref_batch_size",
                                    "sync_ref_model",
                                    "ref_model_mixup_alpha",
                                    "ref_model_sync_steps",
                                    "loss_weights",
                                    "ld_alpha",
                                    "f_divergence_type",
                                    "use_weighting",
                                    "f_alpha_divergence_coef",
                                    "rpo_alpha",
                                    "discopop_tau",
                                    "reference_free"};
// Of its ORPOConfig, and of DPOConfig earlier.
constexpr const char* kOrpoKeys[] = {"max_completion_length", "generate_during_eval",
                                     "is_encoder_decoder", "padding_value"};
// Of both.
constexpr const char* kPairKeys[] = {"beta", "disable_dropout", "max_prompt_length"};

template <typename Keys>
std::vector<std::string> those_in(const Node& root, const Keys& keys) {
  std::vector<std::string> there;
  for (const char* key : keys)
    if (root.find(key)) there.emplace_back(key);
  return there;
}

// SFTConfig's loss_type names ways to compute one loss; DPOConfig's name losses.
bool names_loss_of_pairs(const Node& root) {
  const Node* loss = in_file(root, "loss_type");
  if (!loss) return false;
  const std::vector<std::string> losses = texts(*loss);
  return !(losses.size() == 1 &&
           (losses[0] == "nll" || losses[0] == "chunked_nll" || losses[0] == "dft"));
}

bool keeps_dropout_in_trl(const Node& root) {
  const Node* switched_off = in_file(root, "disable_dropout");
  return switched_off && is_off(*switched_off);
}

// `why` ends the sentence that the report and the recipe say.
void leave_dropout_out(const char* tool, const char* why, Draft& draft) {
  if (!draft.has("lora.dropout"))
    draft.write("lora.dropout", Node::scalar("0"), fmt::format("{} switches it off", tool));
  draft.warn(fmt::format(
      "{} trains DPO and ORPO without dropout{}; so does the recipe, whose lora.dropout is 0", tool,
      why));
}

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
}

void read_disable_dropout(const Found& found, const ToolKey& key, Draft& draft) {
  if (is_off(found.value)) return draft.without_effect(found, "lora.dropout acts in training");
  draft.set(found, key.here, Node::scalar("0"));
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
  std::vector<ToolKey> keys = {
      read_by("beta", "train.beta", "", read_trl_beta),
      read_by("loss_type", "train.loss_type", "", read_trl_loss),
      same("label_smoothing", "train.label_smoothing"),
      read_by("disable_dropout", "lora.dropout", "0 is without dropout", read_disable_dropout, "0"),
      idle("is_encoder_decoder", "models here are decoders"),
      idle("padding_value", kNoPadding),
      idle("generate_during_eval", kNoAnswers),
      refused("max_prompt_length", kOneLength),
      refused("max_completion_length", kOneLength),
      refused("ref_model_*", kReference),
      refused("sync_ref_model", kReference)};
  add_missing(keys,
              idle_all({"precompute_ref_log_probs", "precompute_ref_batch_size"}, kReference));
  add_missing(
      keys, refused_all({"loss_weights", "ld_alpha", "f_divergence_type", "f_alpha_divergence_coef",
                         "use_weighting", "discopop_tau", "rpo_alpha"},
                        kOfPairs));
  return keys;
}

bool compares_in_trl(const Node& root) {
  return names_loss_of_pairs(root) || !those_in(root, kDpoKeys).empty() ||
         !those_in(root, kOrpoKeys).empty() || !those_in(root, kPairKeys).empty();
}

bool may_be_orpo_in_trl(const Node& root) {
  return compares_in_trl(root) && !names_loss_of_pairs(root) && those_in(root, kDpoKeys).empty();
}

ToolKey trl_dropout() {
  return dropout(
      "lora_dropout",
      [](const Node& root) { return compares_in_trl(root) && !keeps_dropout_in_trl(root); },
      "disable_dropout is on unless the file says otherwise");
}

// Files of the two objectives may have the same keys.
void finish_trl_preferences(const Node& root, Draft& draft) {
  if (!compares_in_trl(root)) return;
  if (!draft.has("train.objective"))
    draft.write("train.objective", Node::string("dpo"), "keys of DPOConfig");
  if (!keeps_dropout_in_trl(root))
    leave_dropout_out("TRL", " (disable_dropout is on unless the file says otherwise)", draft);
  if (draft.text_of("train.objective") != "dpo" || !may_be_orpo_in_trl(root)) return;
  const std::vector<std::string> of_orpo = those_in(root, kOrpoKeys);
  draft.warn(fmt::format(
      "the file may be for TRL's DPO or for its ORPO, whose keys are the same{}; the recipe says "
      "train.objective: dpo. Of an ORPO run make it orpo, with data.train_on: all",
      of_orpo.empty() ? ""
                      : fmt::format(" (of the two today's ORPOConfig alone has {})",
                                    fmt::join(of_orpo, ", "))));
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
      idle("dpo_padding_free", kNoPadding),
      idle("dpo_generate_during_eval", kNoAnswers),
      refused("max_prompt_len", kOneLength)};
  add_missing(keys,
              refused_all({"dpo_use_weighting", "dpo_loss_weights", "dpo_norm_loss", "rpo_alpha"},
                          kOfPairs));
  add_missing(keys, refused_all({"trl", "trl.*", "ebft", "ebft.*", "vllm", "vllm.*", "simpo_gamma",
                                 "cpo_alpha", "kto_*", "reward_model", "process_reward_model",
                                 "center_rewards_coefficient", "num_labels"},
                                kObjectives));
  return keys;
}

bool compares_in_axolotl(const Node& root) {
  const std::string way = text(in_file(root, "rl"));
  return way == "dpo" || way == "ipo" || way == "orpo";
}

ToolKey axolotl_dropout() {
  return dropout("lora_dropout", compares_in_axolotl,
                 "TRL's trainers, which rl calls, switch dropout off");
}

void finish_axolotl_preferences(const Node& root, Draft& draft) {
  if (!compares_in_axolotl(root)) return;
  leave_dropout_out("Axolotl", " (by TRL's trainers, whatever lora_dropout says)", draft);
  if (text(in_file(root, "rl")) == "orpo" && draft.text_of("data.train_on") != "all")
    draft.warn(
        "TRL's ORPO, which Axolotl calls, also learns the prompts of the chosen answers, whatever "
        "train_on_inputs says; here data.train_on: all does that");
}

std::vector<ToolKey> llama_factory_preference_keys() {
  std::vector<ToolKey> keys = {
      read_by("stage", "train.objective", "dpo; orpo is pref_loss there", read_stage),
      read_by("pref_loss", "train.loss_type", "orpo is train.objective: orpo", read_one_loss),
      same("pref_beta", "train.beta"),
      same("dpo_label_smoothing", "train.label_smoothing"),
      idle("ref_model", kReference),
      idle("ref_model_*", kReference)};
  add_missing(keys, refused_all({"pref_ftx", "pref_bco_weight", "ld_alpha"}, kOfPairs));
  add_missing(keys, refused_all({"kto_*", "simpo_gamma", "ppo_*", "reward_model", "reward_model_*"},
                                kObjectives));
  return keys;
}

bool compares_in_llama_factory(const Node& root) { return text(in_file(root, "stage")) == "dpo"; }

ToolKey llama_factory_dropout() {
  return dropout("lora_dropout", compares_in_llama_factory,
                 "its trainer of stage dpo switches dropout off");
}

void finish_llama_factory_preferences(const Node& root, Draft& draft) {
  if (compares_in_llama_factory(root))
    leave_dropout_out("LLaMA-Factory", ", whatever lora_dropout says", draft);
}

std::vector<ToolKey> torchtune_preference_keys() {
  return {read_by("loss._component_", "train.objective", "dpo", read_torchtune_loss),
          same("loss.beta", "train.beta"), same("loss.label_smoothing", "train.label_smoothing"),
          idle("loss.num_output_chunks", kFused)};
}

}  // namespace qlora::recipes
