#include "recipes/fields/values_in_words.h"
#include "recipes/import/conversions.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {

constexpr const char* kLoading = "rows are prepared before training and need no loaders";
constexpr const char* kEpochs =
    "steps of an epoch are not known before the rows are read; write it in steps";

std::string strategy(const Found& found) {
  const Node* now = beside(found, "eval_strategy");
  return text(now ? now : beside(found, "evaluation_strategy"));
}

void read_eval_steps(const Found& found, const ToolKey& key, Draft& draft) {
  if (strategy(found) != "steps") return draft.without_effect(found, "eval_strategy is not steps");
  steps("", "train.eval_every").convert(found, key, draft);
}

void read_eval_strategy(const Found& found, const ToolKey& key, Draft& draft) {
  if (is_off(found.value))
    return draft.without_effect(found, "evaluation rows are evaluated at the end in any case");
  if (found.value.text == "epoch") return draft.refuse(found, kEpochs);
  if (beside(found, "eval_steps")) return draft.without_effect(found, "eval_steps says when");
  const Node* logging = beside(found, "logging_steps");
  if (!logging) return draft.refuse(found, "train.eval_every says after how many steps");
  draft.set(found, key.here, plain(*logging));
}

void read_save_steps(const Found& found, const ToolKey& key, Draft& draft) {
  const std::string when = text(beside(found, "save_strategy"), "steps");
  if (when != "steps") return draft.without_effect(found, "save_strategy is not steps");
  steps("", "train.save_every").convert(found, key, draft);
}

void read_save_strategy(const Found& found, const ToolKey&, Draft& draft) {
  if (found.value.text == "epoch") return draft.refuse(found, kEpochs);
  draft.without_effect(found, "a run saves at its end, and keeps its best checkpoint, in any case");
}

void read_best_metric(const Found& found, const ToolKey&, Draft& draft) {
  const std::string metric = found.value.text;
  if (metric == "loss" || metric == "eval_loss")
    return draft.without_effect(found, "the best checkpoint is that of the least evaluation loss");
  draft.refuse(found, "the best checkpoint is that of the least evaluation loss");
}

// There each start trains anew that resume_from_checkpoint names no checkpoint for.
void read_overwrite(const Found& found, const ToolKey& key, Draft& draft) {
  const Node* checkpoint = beside(found, "resume_from_checkpoint");
  if (checkpoint && !is_off(*checkpoint))
    return draft.without_effect(found, "resume_from_checkpoint says that the run goes on");
  draft.set(found, key.here, plain(found.value));
  if (is_true(&found.value))
    draft.warn(
        "with overwrite_output_dir each start trains anew unless resume_from_checkpoint is set; "
        "output.overwrite replaces finished runs and those of other recipes, while an unfinished "
        "run of this recipe goes on, and `qlora train RECIPE --overwrite` begins it anew");
}

// transformers writes fsdp_config also where fsdp is off.
void read_fsdp_part(const Found& found, const ToolKey& key, Draft& draft) {
  const Node* fsdp = beside(found, "fsdp");
  if (is_off(found.value) || (fsdp && is_off(*fsdp)))
    return draft.without_effect(found, "it is off");
  draft.refuse(found, key.note);
}

std::vector<ToolKey> learning_keys() {
  return {same("learning_rate", "optim.lr"),
          optimizer("optim"),
          same("weight_decay", "optim.weight_decay"),
          beta("adam_beta1", "adam_beta1", "adam_beta2"),
          beta("adam_beta2", "adam_beta1", "adam_beta2"),
          same("adam_epsilon", "optim.eps"),
          same("max_grad_norm", "optim.max_grad_norm"),
          schedule("lr_scheduler_type"),
          schedule_arguments("lr_scheduler_kwargs"),
          warmup("warmup_steps", "optim.warmup_steps", "lr_scheduler_type"),
          warmup("warmup_ratio", "optim.warmup_ratio", "lr_scheduler_type"),
          same("num_train_epochs", "train.epochs"),
          max_steps("max_steps"),
          same("per_device_train_batch_size", "train.micro_batch_size"),
          same("per_gpu_train_batch_size", "train.micro_batch_size"),
          same("gradient_accumulation_steps", "train.gradient_accumulation_steps"),
          same("gradient_checkpointing", "train.gradient_checkpointing"),
          same("seed", "train.seed"),
          refused("label_smoothing_factor", "the loss of answers has no label smoothing"),
          refused("neftune_noise_alpha", "no noise is added to embeddings"),
          refused("optim_args", "optim.betas, eps and alpha take an optimizer's numbers"),
          refused("optim_target_modules", "optimizers of projected gradients are not had"),
          refused("adafactor", "adafactor is not had; optim.name: adamw_8bit takes as little"),
          refused("auto_find_batch_size",
                  "`qlora plan --fit` finds the batch; train.micro_batch_size takes it")};
}

std::vector<ToolKey> output_keys() {
  return {same("output_dir", "output.dir"),
          read_by("overwrite_output_dir", "output.overwrite", "", read_overwrite),
          steps("logging_steps", "train.log_every"),
          same("save_total_limit", "train.save_total_limit"),
          resume("resume_from_checkpoint"),
          idle("save_only_model", "checkpoints hold all that resuming needs")};
}

std::vector<ToolKey> idle_keys() {
  std::vector<ToolKey> keys = {
      idle("per_device_eval_batch_size", "evaluation uses train.micro_batch_size"),
      idle("per_gpu_eval_batch_size", "evaluation uses train.micro_batch_size"),
      idle("gradient_checkpointing_kwargs", kRecomputing),
      idle("data_seed", "train.seed decides the order too"),
      idle("do_train", "`qlora train` trains"),
      idle("do_eval", "evaluation rows are evaluated where there are any"),
      idle("full_determinism", kExactly),
      idle("use_cache", "training keeps no keys and values of earlier tokens"),
      idle("torch_empty_cache_steps", kMemory),
      idle("ignore_data_skip", "a run that is resumed goes on with its next rows"),
      idle("debug", "train.audit watches a run's numbers"),
      idle("do_predict", kNoAnswers),
      idle("push_to_hub", kNoUpload),
      idle("average_tokens_across_devices", kNoSharding),
      idle("tf32", "products are of the type that train.compute_dtype names: " +
                       values_in_words("train.compute_dtype"))};
  for (const char* name : {"bf16", "fp16"})
    keys.push_back(read_by(
        name, "train.compute_dtype", "auto takes bfloat16 where the machine multiplies it",
        [](const Found& found, const ToolKey& key, Draft& draft) {
          draft.without_effect(found, key.here + ": " + key.note);
        },
        std::string(name) == "fp16" ? "float16" : ""));
  add_missing(keys, idle_all({"torch_compile*", "torchdynamo", "use_liger_kernel",
                              "liger_kernel_config", "jit_mode_eval", "use_ipex"},
                             kFused));
  add_missing(keys, idle_all({"dataloader_*", "remove_unused_columns", "label_names",
                              "length_column_name", "dispatch_batches", "split_batches"},
                             kLoading));
  add_missing(keys, idle_all({"fp16_*", "bf16_full_eval", "half_precision_backend"},
                             "train.compute_dtype decides how products are computed"));
  add_missing(keys,
              idle_all({"eval_accumulation_steps", "prediction_loss_only", "eval_do_concat_batches",
                        "batch_eval_metrics", "eval_use_gather_object", "include_for_metrics",
                        "include_inputs_for_metrics", "eval_on_start", "eval_delay",
                        "greater_is_better", "past_index", "use_legacy_prediction_loop"},
                       "evaluation measures the loss, and the best checkpoint is kept"));
  add_missing(keys, idle_all({"save_safetensors", "save_on_each_node",
                              "restore_callback_states_from_checkpoint"},
                             "checkpoints need no key here"));
  add_missing(keys, idle_all({"log_level*", "log_on_each_node", "logging_dir", "logging_strategy",
                              "logging_first_step", "logging_nan_inf_filter", "disable_tqdm",
                              "skip_memory_metrics", "run_name", "include_*"},
                             kAlwaysLogged));
  add_missing(keys, idle_all({"local_rank", "ddp_*", "tpu_*", "accelerator_config", "ray_scope",
                              "mp_parameters"},
                             kNoSharding));
  return keys;
}

std::vector<ToolKey> refused_keys() {
  ToolKey fsdp_parts = read_by("fsdp_*", "", kNoSharding, read_fsdp_part);
  fsdp_parts.is_refused = true;
  std::vector<ToolKey> keys = {
      fsdp_parts, refused("use_mps_device", "train.device is " + values_in_words("train.device"))};
  add_missing(keys,
              refused_all({"deepspeed", "fsdp", "parallelism_config", "tp_size"}, kNoSharding));
  add_missing(keys, idle_all({"push_to_hub_*", "hub_*"}, kNoUpload));
  for (const char* name : {"no_cuda", "use_cpu"})
    keys.push_back(when_true(name, "train.device", "cpu"));
  return keys;
}

}  // namespace

std::vector<ToolKey> evaluation_keys(bool always) {
  ToolKey eval_steps = read_by("eval_steps", "train.eval_every", "in steps", read_eval_steps);
  if (always) eval_steps = steps("eval_steps", "train.eval_every");
  return {eval_steps,
          read_by("eval_strategy", "train.eval_every", "in steps", read_eval_strategy),
          read_by("evaluation_strategy", "train.eval_every", "in steps", read_eval_strategy),
          read_by("save_steps", "train.save_every", "in steps", read_save_steps),
          read_by("save_strategy", "train.save_every", "in steps", read_save_strategy),
          refused("load_best_model_at_end",
                  "output.dir/adapter is that of the last step; --checkpoint best of export, "
                  "evaluate, generate and chat takes that of the best"),
          read_by("metric_for_best_model", "", "the evaluation loss says which is the best",
                  read_best_metric)};
}

std::vector<ToolKey> logger_keys() {
  return idle_all(
      {"report_to", "wandb_*", "use_wandb", "swanlab_*", "use_swanlab", "comet_*", "use_comet",
       "mlflow_*", "use_mlflow", "hf_mlflow_log_artifacts", "trackio_*", "use_trackio",
       "use_tensorboard", "project", "project_name", "otel_*", "use_otel_metrics"},
      kAlwaysLogged);
}

std::vector<ToolKey> training_argument_keys() {
  std::vector<ToolKey> keys = learning_keys();
  for (const auto& part : {output_keys(), evaluation_keys(false), row_order_keys(), idle_keys(),
                           refused_keys(), logger_keys()})
    add_missing(keys, part);
  return keys;
}

}  // namespace qlora::recipes
