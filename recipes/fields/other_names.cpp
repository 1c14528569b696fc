#include "recipes/fields/other_names.h"

#include <algorithm>
#include <cctype>

namespace qlora::recipes {
namespace {

constexpr const char* kAlwaysLogged =
    "metrics.jsonl and TensorBoard files are written to output.dir without a key; leave it out";
constexpr const char* kTargets = "write module names, or all-linear";

std::vector<OtherName> model_names() {
  return {{"model_name_or_path", "model.path", ""},
          {"base_model", "model.path", ""},
          {"checkpoint_dir", "model.path", ""},
          {"checkpointer.checkpoint_dir", "model.path", ""},
          {"pretrained_model_name_or_path", "model.path", ""},
          {"base_model_name_or_path", "model.name", ""},
          {"torch_dtype", "model.dtype", ""},
          {"bf16", "train.compute_dtype", "auto takes bfloat16 where the machine multiplies it"},
          {"fp16", "train.compute_dtype", "auto takes bfloat16 where the machine multiplies it",
           "float16"},
          {"tf32", "", "products are bfloat16 or float32 (train.compute_dtype); leave it out"},
          {"precision", "train.compute_dtype", "write bfloat16 or float32"},
          {"device_map", "model.device_map", ""},
          {"max_memory", "model.max_memory", ""},
          {"offload_folder", "model.offload_dir", ""},
          {"attn_implementation", "", "attention needs no key here; leave it out"},
          {"flash_attention", "", "attention needs no key here; leave it out"},
          {"flash_attn", "", "attention needs no key here; leave it out"}};
}

std::vector<OtherName> quantization_names() {
  return {
      {"load_in_4bit", "quantization.method", "", "nf4"},
      {"load_in_8bit", "quantization.method", "", "int8"},
      {"quantization_bit", "quantization.method", "4 is nf4, 8 is int8", "nf4"},
      {"quantize", "quantization.method", "bnb.int8 is int8", "nf4"},
      {"qlora_bnb", "quantization.method", "", "nf4"},
      {"bnb_4bit_quant_type", "quantization.method", ""},
      {"quantization_type", "quantization.method", ""},
      {"quant_type", "quantization.method", ""},
      {"bnb_config_kwargs", "quantization.method", "with double_quant and block_size beside it"},
      {"quantization_config", "quantization.method", "with double_quant and block_size beside it"},
      {"bnb_4bit_use_double_quant", "quantization.double_quant", ""},
      {"use_bnb_nested_quant", "quantization.double_quant", ""},
      {"use_double_quant", "quantization.double_quant", ""},
      {"double_quantization", "quantization.double_quant", ""},
      {"qlora_bnb_double_quant", "quantization.double_quant", ""},
      {"bnb_4bit_compute_dtype", "train.compute_dtype", ""},
      {"bnb_4bit_blocksize", "quantization.block_size", ""},
      {"llm_int8_skip_modules", "quantization.skip_modules", ""},
      {"modules_to_not_convert", "quantization.skip_modules", ""}};
}

std::vector<OtherName> lora_names() {
  return {{"adapter", "quantization.method", "for qlora; adapters are always LoRA", "nf4"},
          {"finetuning_type", "", "adapters are always LoRA; leave it out"},
          {"r", "lora.rank", ""},
          {"lora_r", "lora.rank", ""},
          {"lora_rank", "lora.rank", ""},
          {"lora_alpha", "lora.alpha", ""},
          {"lora_dropout", "lora.dropout", ""},
          {"target_modules", "lora.targets", ""},
          {"lora_target_modules", "lora.targets", ""},
          {"lora_target_linear", "lora.targets", "", "all-linear"},
          {"lora_target", "lora.targets", "all is all-linear here"},
          {"lora_attn_modules", "lora.targets", kTargets},
          {"apply_lora_to_mlp", "lora.targets", kTargets},
          {"apply_lora_to_output", "lora.targets", "add lm_head"},
          {"lora_query", "lora.targets", "", "q_proj"},
          {"lora_key", "lora.targets", "", "k_proj"},
          {"lora_value", "lora.targets", "", "v_proj"},
          {"lora_projection", "lora.targets", "", "o_proj"},
          {"lora_mlp", "lora.targets", "", "[gate_proj, up_proj, down_proj]"},
          {"lora_head", "lora.targets", "add lm_head"},
          {"modules_to_save", "lora.modules_to_save", ""},
          {"lora_modules_to_save", "lora.modules_to_save", ""},
          {"additional_target", "lora.modules_to_save", ""},
          {"use_stochastic_rounding", "optim.stochastic_rounding", ""},
          {"bias", "lora.bias", ""},
          {"init_lora_weights", "lora.init", ""},
          {"loftq_config", "lora.loftq", "beside lora.init: loftq", "{iterations: 1}"},
          {"loftq_iter", "lora.loftq", "beside lora.init: loftq", "{iterations: 1}"},
          {"loftq_bits", "lora.init", "quantization.method gives the bits", "loftq"},
          {"peft", "lora.init", "of loftq_config; lora.loftq has the iterations", "loftq"},
          {"pissa_init", "lora.init", "", "pissa"},
          {"loraplus_lr_ratio", "lora.plus_lr_ratio", ""},
          {"peft_use_rslora", "lora.use_rslora", ""},
          {"peft_use_dora", "lora.use_dora", ""},
          {"lora_model_dir", "lora.from_adapter", ""},
          {"adapter_name_or_path", "lora.from_adapter", ""},
          {"task_type", "", "the model's architecture says it; leave it out"}};
}

std::vector<OtherName> data_names() {
  return {{"datasets", "data.train", ""},
          {"dataset", "data.train", ""},
          {"train_dataset", "data.train", ""},
          {"train_file", "data.train", ""},
          {"test_datasets", "data.eval", ""},
          {"eval_dataset", "data.eval", ""},
          {"validation_file", "data.eval", ""},
          {"val_set_size", "data.eval_fraction", "a share, not a count"},
          {"val_size", "data.eval_fraction", "a share, not a count"},
          {"val_split_fraction", "data.eval_fraction", ""},
          {"validation_split_ratio", "data.eval_fraction", ""},
          {"max_length", "data.sequence_length", ""},
          {"max_seq_length", "data.sequence_length", ""},
          {"sequence_len", "data.sequence_length", ""},
          {"cutoff_len", "data.sequence_length", ""},
          {"max_seq_len", "data.sequence_length", ""},
          {"tokenizer.max_seq_len", "data.sequence_length", ""},
          {"train.max_seq_length", "data.sequence_length", ""},
          {"sample_packing", "data.packing", ""},
          {"neat_packing", "data.packing", "rows in one sequence never see each other"},
          {"packed", "data.packing", ""},
          {"dataset.packed", "data.packing", ""},
          {"completion_only_loss", "data.train_on", "true is assistant"},
          {"assistant_only_loss", "data.train_on", "true is assistant"},
          {"train_on_inputs", "data.train_on", "true is all, false is assistant"},
          {"train_on_prompt", "data.train_on", "true is all, false is assistant"},
          {"train_on_input", "data.train_on", "true is all, false is assistant"},
          {"dataset.train_on_input", "data.train_on", "true is all, false is assistant"},
          {"mask_prompt", "data.train_on", "true is assistant, false is all"},
          {"roles_to_train", "data.train_on", "write assistant or all"},
          {"loss_scale", "data.train_on", "write assistant or all"},
          {"mask_history", "", "all answers of a conversation are trained; leave it out"},
          {"template", "data.chat_template", ""},
          {"type", "data.train[].format", ""},
          {"ds_type", "data.train[].format", ""},
          {"formatting", "data.train[].format", ""},
          {"columns", "data.train[].fields", ""},
          {"max_samples", "data.train[].max_rows", ""},
          {"interleave_probs", "data.train[].weight", "one in each dataset"},
          {"dataset_exact_deduplication", "data.deduplicate", ""}};
}

std::vector<OtherName> optim_names() {
  return {{"learning_rate", "optim.lr", ""},
          {"optim", "optim.name", ""},
          {"optimizer", "optim.name", ""},
          {"optimizer._component_", "optim.name", ""},
          {"optimizer.class_path", "optim.name", ""},
          {"optimizer.lr", "optim.lr", ""},
          {"adam_beta1", "optim.betas", "write [beta1, beta2]"},
          {"adam_beta2", "optim.betas", "write [beta1, beta2]"},
          {"beta1", "optim.betas", "write [beta1, beta2]"},
          {"beta2", "optim.betas", "write [beta1, beta2]"},
          {"adam_epsilon", "optim.eps", ""},
          {"epsilon", "optim.eps", ""},
          {"lr_scheduler_type", "optim.schedule", ""},
          {"lr_scheduler", "optim.schedule", ""},
          {"lr_scheduler._component_", "optim.schedule", ""},
          {"scheduler", "optim.schedule", ""},
          {"num_warmup_steps", "optim.warmup_steps", ""},
          {"lr_scheduler.num_warmup_steps", "optim.warmup_steps", ""},
          {"lr_warmup_steps", "optim.warmup_steps", ""},
          {"train.lr_warmup_steps", "optim.warmup_steps", ""},
          {"clip_grad_norm", "optim.max_grad_norm", ""},
          {"gradient_clipping", "optim.max_grad_norm", ""},
          {"max_norm", "optim.max_grad_norm", ""},
          {"train.max_norm", "optim.max_grad_norm", ""}};
}

std::vector<OtherName> train_names() {
  return {
      {"rl", "train.objective", "dpo or orpo; ipo is dpo with train.loss_type: ipo"},
      {"stage", "train.objective", "dpo; orpo is pref_loss there"},
      {"pref_loss", "train.loss_type", "orpo is train.objective: orpo"},
      {"pref_beta", "train.beta", ""},
      {"rl_beta", "train.beta", ""},
      {"dpo_beta", "train.beta", ""},
      {"orpo_alpha", "train.beta", ""},
      {"dpo_label_smoothing", "train.label_smoothing", ""},
      {"ref_model", "", "the reference is the model as it was before the run; leave it out"},
      {"ref_model_adapters", "",
       "the reference is the model as it was before the run; leave it out"},
      {"precompute_ref_log_probs", "",
       "the reference is always computed before the run; leave it out"},
      {"num_train_epochs", "train.epochs", ""},
      {"num_epochs", "train.epochs", ""},
      {"max_steps_per_epoch", "train.max_steps", "which counts steps of the whole run"},
      {"per_device_train_batch_size", "train.micro_batch_size", ""},
      {"batch_size", "train.micro_batch_size", ""},
      {"per_device_eval_batch_size", "", "evaluation uses train.micro_batch_size; leave it out"},
      {"global_batch_size", "train.gradient_accumulation_steps",
       "the global batch divided by train.micro_batch_size"},
      {"disable_gradient_checkpointing", "train.gradient_checkpointing", "the other way round"},
      {"enable_activation_checkpointing", "train.gradient_checkpointing", ""},
      {"recompute", "train.gradient_checkpointing", ""},
      {"eval_steps", "train.eval_every", "in steps"},
      {"evals_per_epoch", "train.eval_every", "in steps"},
      {"save_steps", "train.save_every", "in steps"},
      {"save_interval", "train.save_every", "in steps"},
      {"train.save_interval", "train.save_every", "in steps"},
      {"saves_per_epoch", "train.save_every", "in steps"},
      {"resume_from_checkpoint", "train.resume", "write auto, never or a checkpoint directory"},
      {"auto_resume_from_checkpoints", "train.resume", "write auto or never"}};
}

std::vector<OtherName> output_names() {
  return {{"output_dir", "output.dir", ""},
          {"out_dir", "output.dir", ""},
          {"overwrite_output_dir", "output.overwrite", ""},
          {"logging_steps", "train.log_every", "in steps"},
          {"log_every_n_steps", "train.log_every", "in steps"},
          {"log_interval", "train.log_every", "in steps"},
          {"train.log_interval", "train.log_every", "in steps"},
          {"report_to", "", kAlwaysLogged},
          {"use_tensorboard", "", kAlwaysLogged},
          {"logger_name", "", kAlwaysLogged},
          {"metric_logger", "", kAlwaysLogged},
          {"wandb_project", "", kAlwaysLogged},
          {"wandb_entity", "", kAlwaysLogged},
          {"wandb_name", "", kAlwaysLogged}};
}

std::string plain(std::string name) {
  for (char& c : name)
    c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

}  // namespace

const std::vector<OtherName>& other_names() {
  static const std::vector<OtherName> table = [] {
    std::vector<OtherName> all;
    for (const auto& part : {model_names(), quantization_names(), lora_names(), data_names(),
                             optim_names(), train_names(), output_names()})
      all.insert(all.end(), part.begin(), part.end());
    return all;
  }();
  return table;
}

const OtherName* find_other_name(const std::string& section, const std::string& name) {
  for (const std::string& wanted : {plain(section + "." + name), plain(name)})
    for (const OtherName& other : other_names())
      if (other.name == wanted) return &other;
  return nullptr;
}

std::string other_name_sentence(const OtherName& other) {
  if (other.here.empty()) return other.note;
  return "it is " + other.here + " here" + (other.value.empty() ? "" : ": write " + other.value) +
         (other.note.empty() ? "" : " (" + other.note + ")");
}

}  // namespace qlora::recipes
