#include <fmt/format.h>

#include "recipes/fields/values_in_words.h"
#include "recipes/import/conversions.h"
#include "recipes/import/datasets.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {

std::string component_name(const Node& component) {
  return component.text.substr(component.text.rfind('.') + 1);
}

// "torchtune.models.llama3_1.qlora_llama3_1_8b"
void read_model(const Found& found, const ToolKey& key, Draft& draft) {
  const std::string name = component_name(found.value);
  if (name.find("vision") != std::string::npos) return draft.refuse(found, "models read text here");
  if (name.starts_with("qlora_")) return draft.set(found, key.here, Node::string("nf4"));
  if (!name.starts_with("lora_")) return draft.refuse(found, kWholeModel);
  draft.without_effect(found, "the model is that of model.path");
}

void append_targets(const Found& found, const ToolKey& key, Draft& draft,
                    const std::vector<std::string>& modules) {
  if (!is_true(&found.value)) return draft.without_effect(found, "it is off");
  draft.append(found, key.here, modules);
}

void read_attention_targets(const Found& found, const ToolKey& key, Draft& draft) {
  std::vector<std::string> modules = texts(found.value);
  for (std::string& module : modules)
    if (module == "output_proj") module = "o_proj";
  draft.append(found, key.here, modules);
}

void read_schedule(const Found& found, const ToolKey& key, Draft& draft) {
  const std::string name = component_name(found.value);
  for (const char* shape : {"cosine", "linear", "constant"})
    if (name == fmt::format("get_{}_schedule_with_warmup", shape))
      return draft.set(found, key.here, Node::string(shape));
  draft.refuse(found, "optim.schedule has no counterpart of it");
}

bool is_count(const std::string& text) {
  return !text.empty() && text.size() < 10 &&
         text.find_first_not_of("0123456789") == std::string::npos;
}

void read_epoch_steps(const Found& found, const ToolKey& key, Draft& draft) {
  const std::string epochs = text(beside(found, "epochs"), "1"), steps = text(&found.value);
  if (!is_count(epochs) || !is_count(steps))
    return draft.refuse(found, "train.max_steps counts the steps of the whole run");
  draft.set(found, key.here,
            Node::scalar(fmt::format("{}", std::stoll(epochs) * std::stoll(steps))));
}

// All of the model is in it, adapters too, and products are computed in it.
void read_dtype(const Found& found, const ToolKey& key, Draft& draft) {
  dtype("", key.here).convert(found, key, draft);
  const std::string type = draft.text_of(key.here);
  if (type == "float32") draft.set(found, "train.compute_dtype", Node::string(type));
  if (type == "bfloat16")
    draft.warn(
        "torchtune holds adapters in dtype, which is bfloat16; here they are float32, and "
        "lora.dtype: bfloat16 rounds them as there");
}

std::vector<ToolKey> model_keys() {
  std::vector<ToolKey> keys = {
      read_by("model._component_", "quantization.method", "for qlora_ models", read_model, "nf4"),
      when_true("model.quantize_base", "quantization.method", "nf4"),
      same("model.lora_rank", "lora.rank"),
      same("model.lora_alpha", "lora.alpha"),
      same("model.lora_dropout", "lora.dropout"),
      same("model.use_dora", "lora.use_dora"),
      read_by("model.lora_attn_modules", "lora.targets", "write module names, or all-linear",
              read_attention_targets),
      read_by("model.apply_lora_to_mlp", "lora.targets", "write module names, or all-linear",
              [](const Found& found, const ToolKey& key, Draft& draft) {
                append_targets(found, key, draft, {"gate_proj", "up_proj", "down_proj"});
              }),
      read_by("model.apply_lora_to_output", "lora.targets", "add lm_head",
              [](const Found& found, const ToolKey& key, Draft& draft) {
                append_targets(found, key, draft, {"lm_head"});
              }),
      refused("model.*", "the model is what the files of model.path say"),
      same("checkpointer.checkpoint_dir", "model.path"),
      same("base_model_path", "model.path"),
      refused("checkpointer.adapter_checkpoint",
              "lora.from_adapter names the directory of a PEFT adapter"),
      refused("checkpointer.recipe_checkpoint", "`qlora resume` goes on with runs of this program"),
      same("checkpointer.keep_last_n_checkpoints", "train.save_total_limit"),
      idle("checkpointer.*", "the files of model.path are found by its index"),
      longest_row("tokenizer.max_seq_len"),
      refused("tokenizer.prompt_template", "the model's chat template words prompts"),
      idle("tokenizer.*", kTokenizer),
      read_by("dtype", "model.dtype", "", read_dtype),
      idle("quantizer.*", "`qlora quantize` writes a quantized model"),
      refused("teacher_*", "a model learns from rows, not from another model"),
      refused("kd_*", "a model learns from rows, not from another model"),
      refused("ref_checkpointer.*", "the reference is the model as it was before the run")};
  return keys;
}

std::vector<ToolKey> data_keys() {
  std::vector<ToolKey> keys = {
      read_by("dataset", "data.train", "", read_torchtune_dataset),
      read_by("dataset_val", "data.eval", "", read_torchtune_dataset),
      read_by("datasets", "data.train", "", read_torchtune_datasets),
      {"dataset[]._component_", "data.train[].format"},
      {"dataset[].source", "data.train[].path"},
      {"dataset[].data_files", "data.train[].path"},
      {"dataset[].column_map", "data.train[].fields"},
      {"dataset[].column", "data.train[].fields"},
      {"dataset[].conversation_column", "data.train[].fields"},
      {"dataset[].conversation_style", "data.train[].format"},
      {"dataset[].packed", "data.packing"},
      {"dataset[].train_on_input", "data.train_on", "true is all, false is assistant"},
      idle("dataset[].add_eos", "texts end with the model's end-of-text token"),
      idle("dataset[].split_across_pack", "data.packing puts whole rows into a sequence"),
      {"dataset[].new_system_prompt", "data.train[].system"},
      {"dataset[].weight", "data.train[].weight"},
      same("dataset[].shuffle", "data.shuffle"),
      idle("dataset[].streaming", "rows are prepared before training and need no loaders"),
      idle("dataset[].num_workers", "rows are prepared before training and need no loaders"),
      idle("dataset[].parallel_method", "rows are prepared before training and need no loaders"),
      refused("dataset[].transform", "the component of an entry says what its rows are"),
      refused("dataset[].filter_fn", "the file must hold the rows to train on"),
      refused("dataset[].subset", "the file must hold the rows to train on"),
      refused("dataset[].name", "the file must hold the rows to train on"),
      refused("dataset[].data_dir", "the file must hold the rows to train on"),
      read_by("dataset[].split", "", "a split is a file here",
              [](const Found& found, const ToolKey& key, Draft& draft) {
                if (found.value.text == "train" || found.value.text == "validation")
                  return draft.without_effect(found, key.note);
                draft.refuse(found, key.note);
              }),
      same("shuffle", "data.shuffle"),
      idle("collate_fn", "micro-batches need no key"),
      idle("batch_size_val", "evaluation uses train.micro_batch_size"),
      same("run_val_every_n_steps", "train.eval_every", "in steps"),
      same("dataloader.shuffle", "data.shuffle"),
      same("dataloader.packed", "data.packing"),
      idle("dataloader.*", "rows are prepared before training and need no loaders")};
  return keys;
}

std::vector<ToolKey> training_keys() {
  std::vector<ToolKey> keys = {
      same("batch_size", "train.micro_batch_size"),
      same("gradient_accumulation_steps", "train.gradient_accumulation_steps"),
      same("epochs", "train.epochs"),
      read_by("max_steps_per_epoch", "train.max_steps", "which counts steps of the whole run",
              read_epoch_steps),
      same("seed", "train.seed"),
      same("device", "train.device"),
      same("enable_activation_checkpointing", "train.gradient_checkpointing"),
      same("clip_grad_norm", "optim.max_grad_norm"),
      same("output_dir", "output.dir"),
      same("log_every_n_steps", "train.log_every", "in steps"),
      same("save_every_n_steps", "train.save_every", "in steps"),
      resume("resume_from_checkpoint"),
      idle("save_adapter_weights_only", "adapters are what is saved; `qlora export` merges"),
      optimizer("optimizer._component_"),
      same("optimizer.lr", "optim.lr"),
      same("optimizer.weight_decay", "optim.weight_decay"),
      same("optimizer.betas", "optim.betas"),
      same("optimizer.eps", "optim.eps"),
      idle("optimizer.fused", kFused),
      idle("optimizer.foreach", kFused),
      read_by("lr_scheduler._component_", "optim.schedule", "", read_schedule),
      warmup("lr_scheduler.num_warmup_steps", "optim.warmup_steps", ""),
      read_by("lr_scheduler.num_cycles", "", "a cosine falls once, which is 0.5 there",
              [](const Found& found, const ToolKey& key, Draft& draft) {
                if (text(&found.value) == "0.5" || text(&found.value) == ".5")
                  return draft.without_effect(found, key.note);
                draft.refuse(found, key.note);
              }),
      refused("fsdp.*", kNoSharding),
      refused("tensor_parallel_plan.*", kNoSharding)};
  add_missing(keys,
              idle_all({"metric_logger", "metric_logger.*", "log_level", "log_peak_memory_stats"},
                       kAlwaysLogged));
  add_missing(keys, idle_all({"profiler", "profiler.*"}, kProfiles));
  add_missing(keys, idle_all({"enable_activation_offloading", "activation_offloading_use_streams",
                              "optimizer_in_bwd", "low_cpu_ram", "memory_efficient_fsdp_wrap"},
                             kMemory));
  keys.push_back(idle("compile", kFused));
  keys.push_back(idle("cudnn_deterministic_mode", kExactly));
  keys.push_back(refused("enable_fp8_training",
                         "train.compute_dtype is " + values_in_words("train.compute_dtype")));
  add_missing(
      keys, refused_all({"tensor_parallel_dim", "context_parallel_dim", "data_parallel_shard_dim",
                         "data_parallel_replicate_dim", "custom_sharded_layers", "fsdp_cpu_offload",
                         "fsdp_reshard_after_forward"},
                        kNoSharding));
  return keys;
}

void finish(const Node& root, Draft& draft) {
  if (!in_file(root, "clip_grad_norm"))
    draft.set_default("optim.max_grad_norm", Node::scalar("0"), "torchtune");
  if (!in_file(root, "lr_scheduler"))
    draft.set_default("optim.schedule", Node::string("constant"), "torchtune");
  if (in_file(root, "tokenizer.max_seq_len"))
    draft.set_default("data.on_overlength", Node::string("truncate_right"), "torchtune");
  else
    draft.warn(
        "torchtune cuts no rows without tokenizer.max_seq_len; here data.sequence_length is "
        "1024, and a longer row is an error");
}

}  // namespace

Tool torchtune_tool() {
  Tool tool{"torchtune", "torchtune", {}, {}, finish};
  for (const auto& part : {model_keys(), torchtune_preference_keys(), data_keys(), training_keys()})
    add_missing(tool.keys, part);
  tool.defaults = {{"data.packing", "false"}, {"output.dir", "imported-run"}};
  return tool;
}

}  // namespace qlora::recipes
