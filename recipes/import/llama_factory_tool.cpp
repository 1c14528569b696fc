#include <fmt/format.h>
#include <fmt/ranges.h>

#include "recipes/fields/values_in_words.h"
#include "recipes/import/conversions.h"
#include "recipes/import/datasets.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {

constexpr const char* kOtherTuning = "adapters are LoRA, rsLoRA and DoRA here";
constexpr const char* kOtherOptimizer = "optim.name has no such optimizer";

void read_bits(const Found& found, const ToolKey& key, Draft& draft) {
  const std::string method = text(beside(found, "quantization_method"), "bnb");
  if (method != "bnb" && method != "bitsandbytes")
    return draft.refuse(found, fmt::format("quantization_method {} is not had; quantization.method "
                                           "is {}",
                                           method, values_in_words("quantization.method")));
  if (found.value.text == "4")
    return draft.set(found, key.here,
                     Node::string(text(beside(found, "quantization_type"), "nf4")));
  if (found.value.text == "8") return draft.set(found, key.here, Node::string("int8"));
  draft.refuse(found, "4 bits are nf4 or fp4, 8 bits int8");
}

void read_quantization(const Found& found, const ToolKey&, Draft& draft) {
  draft.without_effect(found, "it is read with quantization_bit");
}

void read_double(const Found& found, const ToolKey& key, Draft& draft) {
  if (text(beside(found, "quantization_bit")) != "4")
    return draft.without_effect(found, "quantization_bit is not 4");
  draft.set(found, key.here, plain(found.value));
}

void read_finetuning(const Found& found, const ToolKey&, Draft& draft) {
  if (found.value.text == "lora") return draft.without_effect(found, "adapters are LoRA");
  draft.refuse(found, found.value.text == "full" ? kWholeModel : kOtherTuning);
}

void read_use_pissa(const Found& found, const ToolKey& key, Draft& draft) {
  if (!is_true(&found.value)) return draft.without_effect(found, "it is off");
  draft.set(found, key.here, Node::string("pissa"));
}

void read_template(const Found& found, const ToolKey& key, Draft& draft) {
  for (const char* plain_text : {"default", "empty", "fewshot"})
    if (found.value.text == plain_text)
      return draft.refuse(found,
                          "it is no chat template; rows of format completion are taken as "
                          "they stand");
  chat_template("").convert(found, key, draft);
}

// false beside mask_history, which trains the last answer alone, says nothing more.
void read_train_on_prompt(const Found& found, const ToolKey& key, Draft& draft) {
  if (is_true(&found.value)) return draft.set(found, key.here, Node::string("all"));
  if (is_true(beside(found, "mask_history"))) return draft.take(found, key.here);
  draft.set(found, key.here, Node::string("assistant"));
}

void read_packing(const Found& found, const ToolKey& key, Draft& draft) {
  const bool neat = is_true(beside(found, "neat_packing"));
  const bool packs = is_true(beside(found, "packing"));
  draft.set(found, key.here, Node::scalar(neat || packs ? "true" : "false"));
}

// Rows of a stream change places within a buffer.
void read_streaming(const Found& found, const ToolKey& key, Draft& draft) {
  if (!is_true(&found.value)) return draft.without_effect(found, "it is off");
  const bool mixes = text(beside(found, "mix_strategy")).starts_with("interleave");
  if (is_true(beside(found, "disable_shuffling")) || beside(found, "interleave_probs") || mixes)
    return draft.without_effect(found, "rows are not shuffled, or mixed by weight");
  draft.set(found, key.here, Node::scalar(text(beside(found, "buffer_size"), "16384")));
}

// It computes without a copy in float32 of what is trained; of adapters PEFT makes one all the same
// (autocast_adapter_dtype), of whole modules it does not.
void read_pure_bf16(const Found& found, const ToolKey&, Draft& draft) {
  if (!is_true(&found.value)) return draft.without_effect(found, "it is off");
  draft.without_effect(found,
                       "PEFT holds adapters in float32 beside it too; lora.dtype: bfloat16 holds "
                       "them in bfloat16");
  if (const Node* modules = beside(found, "additional_target"); modules && !is_off(*modules))
    draft.warn(
        "with pure_bf16 the modules of additional_target are bfloat16 there; here they are float32 "
        "as all that is trained, or bfloat16 with lora.dtype: bfloat16");
}

void read_upcast(const Found& found, const ToolKey& key, Draft& draft) {
  if (!is_true(&found.value)) return draft.without_effect(found, "it is off");
  draft.set(found, key.here, Node::string("norms"));
}

std::vector<ToolKey> model_keys() {
  std::vector<ToolKey> keys = {
      read_by("adapter_name_or_path", "lora.from_adapter", "",
              [](const Found& found, const ToolKey& key, Draft& draft) {
                if (texts(found.value).size() > 1)
                  return draft.refuse(found, "a run goes on from one adapter");
                draft.set(found, key.here, plain(found.value));
              }),
      refused("adapter_folder", "lora.from_adapter names the adapter's directory"),
      refused("create_new_adapter", "`qlora export --format merged` first merges the old one"),
      read_by("quantization_bit", "quantization.method", "4 is nf4, 8 is int8", read_bits, "nf4"),
      read_by("quantization_method", "quantization.method", values_in_words("quantization.method"),
              read_quantization),
      read_by("quantization_type", "quantization.method", "", read_quantization),
      read_by("double_quantization", "quantization.double_quant", "", read_double),
      refused("rope_scaling", "model.path's config.json holds its sizes"),
      refused("shift_attn", kOwnAttention),
      refused("mixture_of_depths", "layers are those of the model"),
      refused("train_from_scratch", "the base is that of model.path"),
      read_by("upcast_layernorm", "model.upcast", "", read_upcast),
      inverted("disable_gradient_checkpointing", "train.gradient_checkpointing",
               "the other way round"),
      refused("moe_aux_loss_coef", "no loss of routers is added"),
      same("offload_folder", "model.offload_dir"),
      idle("flash_attn", kAttention),
      idle("trust_remote_code", "no code of a model's directory is run")};
  add_missing(keys, refused_all({"resize_vocab", "add_tokens", "add_special_tokens",
                                 "new_special_tokens_config", "init_special_tokens"},
                                kVocabulary));
  add_missing(keys, model_path("model_name_or_path", "model_revision"));
  add_missing(keys, idle_all({"use_fast_tokenizer", "split_special_tokens"}, kTokenizer));
  add_missing(keys,
              idle_all({"cache_dir", "hf_hub_token", "ms_hub_token", "om_hub_token"}, kNoNetwork));
  add_missing(keys, idle_all({"use_unsloth", "enable_liger_kernel", "upcast_lmhead_output",
                              "use_v1_kernels"},
                             kFused));
  add_missing(keys, idle_all({"use_unsloth_gc", "use_reentrant_gc"}, kRecomputing));
  add_missing(keys, idle_all({"low_cpu_mem_usage", "quantization_device_map", "device_map"},
                             "the model lies on train.device, or where model.device_map says"));
  add_missing(keys, idle_all({"compute_dtype", "model_max_length", "block_diag_attn"},
                             "it follows from other keys there"));
  keys.push_back(idle("print_param_status", kAlwaysLogged));
  add_missing(keys, idle_all({"vllm_*", "sglang_*", "export_*", "infer_backend", "infer_dtype",
                              "use_kv_cache"},
                             "`qlora export` and `qlora generate` have options of their own"));
  add_missing(keys, refused_all({"image_*", "video_*", "audio_*", "crop_to_patches",
                                 "use_audio_in_video", "media_dir"},
                                "rows are text"));
  add_missing(keys, refused_all({"use_kt", "kt_*", "use_mca", "use_megatron_bridge",
                                 "megatron_bridge_args", "use_hyper_parallel", "hyper_parallel_*",
                                 "ray_*", "master_addr", "master_port"},
                                kNoSharding));
  return keys;
}

std::vector<ToolKey> tuning_keys() {
  std::vector<ToolKey> keys = {
      read_by("finetuning_type", "", "adapters are LoRA", read_finetuning),
      same("lora_rank", "lora.rank"),
      same("lora_alpha", "lora.alpha"),
      llama_factory_dropout(),
      list_of("lora_target", "lora.targets", {{"all", "all-linear"}}, "all is all-linear here"),
      list_of("additional_target", "lora.modules_to_save"),
      same("loraplus_lr_ratio", "lora.plus_lr_ratio"),
      refused("loraplus_lr_embedding", "embeddings learn at optim.lr"),
      same("use_rslora", "lora.use_rslora"),
      same("use_dora", "lora.use_dora"),
      read_by("pissa_init", "lora.init", "", read_use_pissa, "pissa"),
      idle("pissa_iter", "lora.init: pissa decomposes exactly"),
      refused("pissa_convert", "the base that PiSSA changed is written beside the adapter"),
      read_by("pure_bf16", "lora.dtype", "bfloat16 holds adapters in it", read_pure_bf16),
      same("early_stopping_steps", "train.early_stopping_patience"),
      inverted("disable_shuffling", "data.shuffle", "the other way round"),
      idle("plot_loss", kAlwaysLogged),
      idle("compute_accuracy", "evaluation measures the loss"),
      idle("include_effective_tokens_per_second", kAlwaysLogged)};
  add_missing(keys, refused_all({"freeze_*", "module_dropout", "oft_*"}, kOtherTuning));
  add_missing(keys,
              refused_all({"use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon"},
                          kOtherOptimizer));
  add_missing(keys, idle_all({"galore_*", "apollo_*", "badam_*"},
                             "it acts only beside keys that are refused"));
  add_missing(keys, refused_all({"use_llama_pro", "use_dft_loss", "use_asft_loss", "asft_alpha",
                                 "use_eaft_loss", "eaft_alpha"},
                                "layers and loss are those of the model"));
  add_missing(keys, refused_all({"fp8", "fp8_*"}, "train.compute_dtype is " +
                                                      values_in_words("train.compute_dtype")));
  add_missing(keys,
              idle_all({"enable_torch_profiler", "profiler_*", "profile_modules"}, kProfiles));
  return keys;
}

std::vector<ToolKey> data_keys() {
  std::vector<ToolKey> keys = {
      read_by("dataset", "data.train", "", read_llama_factory_datasets),
      read_by("eval_dataset", "data.eval", "", read_llama_factory_datasets),
      idle("dataset_dir", "data.train names files with their folder"),
      read_by("template", "data.chat_template", "", read_template),
      same("cutoff_len", "data.sequence_length"),
      share("val_size", "data.eval_fraction"),
      read_by("train_on_prompt", "data.train_on", "true is all, false is assistant",
              read_train_on_prompt),
      when_true("mask_history", "data.train_on", "last"),
      read_by("packing", "data.packing", "", read_packing),
      read_by("neat_packing", "data.packing", "rows in one sequence never see each other",
              read_packing),
      system_message("default_system"),
      refused("tool_format", "the model's template words tools"),
      idle("enable_thinking", "a row has chat_template_kwargs of its own"),
      idle("preserve_thinking", "a row has chat_template_kwargs of its own"),
      same("tokenized_path", "data.cache_dir"),
      read_by("streaming", "data.shuffle_block", "so many rows as buffer_size", read_streaming),
      idle("buffer_size", "it is read with streaming")};
  add_missing(keys, llama_factory_share_keys());
  add_missing(keys, idle_all({"overwrite_cache", "preprocessing_*", "data_shared_file_system"},
                             "rows are prepared before training and need no key"));
  keys.push_back(idle("ignore_pad_token_for_loss", kNoPadding));
  keys.push_back(idle("eval_num_beams", kNoAnswers));
  keys.push_back(idle("eval_on_each_dataset", "an evaluation measures the loss of all its rows"));
  add_missing(keys, idle_all({"predict_with_generate", "do_sample", "temperature", "top_p", "top_k",
                              "num_beams", "max_length", "max_new_tokens", "repetition_penalty",
                              "length_penalty", "skip_special_tokens", "generation_max_length"},
                             "`qlora generate` has options of its own"));
  return keys;
}

// What becomes of rows beyond cutoff_len, and whether rows of a sequence see each other.
void finish_lengths(const Node& root, bool plain_text, Draft& draft) {
  const bool packs = draft.text_of("data.packing") == "true";
  // Its texts lie one behind the other and are cut every cutoff_len tokens: all of them is learnt.
  const bool splits = plain_text && packs;
  draft.set_default("data.on_overlength", Node::string(splits ? "split" : "truncate_right"),
                    "LLaMA-Factory");
  if (!plain_text)
    draft.warn(
        "of a row beyond cutoff_len LLaMA-Factory cuts prompt and answer, turn by turn, so that "
        "answers keep their part; data.on_overlength: truncate_right cuts the row's end, which is "
        "that of the last answer");
  if (packs && !is_true(in_file(root, "neat_packing")))
    draft.warn(
        "LLaMA-Factory's rows see those before them in their sequence unless neat_packing is on; "
        "here rows of a sequence never see each other");
}

void finish(const Node& root, Draft& draft) {
  finish_llama_factory_preferences(root, draft);
  // LLaMA-Factory's alpha is twice the rank.
  const std::string rank = text(in_file(root, "lora_rank"), "8");
  const bool is_count = !rank.empty() && rank.find_first_not_of("0123456789") == std::string::npos;
  if (is_count && rank.size() < 6)
    draft.set_default("lora.alpha", Node::scalar(fmt::format("{}", 2 * std::stoi(rank))),
                      "LLaMA-Factory");
  const bool plain_text = text(in_file(root, "stage")) == "pt";
  draft.set_default("data.packing", Node::scalar(plain_text ? "true" : "false"), "LLaMA-Factory");
  finish_lengths(root, plain_text, draft);
}

std::vector<std::string> keys_in(const Node& root, const std::vector<std::string>& names) {
  std::vector<std::string> there;
  for (const std::string& name : names)
    if (root.find(name)) there.push_back(name);
  return there;
}

// Its v1 and its trainers on Megatron have files of their own.
std::string why_not_read(const Node& root) {
  const auto sentence = [](const char* form, const std::vector<std::string>& keys) {
    return fmt::format(
        "it is a file for LLaMA-Factory's {} ({}), which is not read; files as those of its "
        "examples/train_lora and examples/train_qlora are (model_name_or_path, finetuning_type, "
        "lora_rank, dataset, ...)",
        form, fmt::join(keys, ", "));
  };
  const auto v1 =
      keys_in(root, {"model_class", "peft_config", "dist_config", "kernel_config", "quant_config",
                     "optim_config", "lr_scheduler_config", "batching_strategy", "sample_backend"});
  const Node* model = in_file(root, "model");
  if (model && model->is_scalar() && !v1.empty()) return sentence("v1", v1);
  const auto megatron =
      keys_in(root, {"tensor_model_parallel_size", "pipeline_model_parallel_size",
                     "expert_model_parallel_size", "virtual_pipeline_model_parallel_size",
                     "use_distributed_optimizer", "megatron_pretrained_checkpoint"});
  const bool names_model = in_file(root, "model_name_or_path") != nullptr;
  return names_model && !megatron.empty() ? sentence("Megatron trainers", megatron) : "";
}

}  // namespace

Tool llama_factory_tool() {
  Tool tool{"llama-factory", "LLaMA-Factory", {}, {}, finish, why_not_read};
  for (const auto& part : {model_keys(), tuning_keys(), data_keys(),
                           llama_factory_preference_keys(), training_argument_keys()})
    add_missing(tool.keys, part);
  tool.defaults = {{"lora.rank", "8"},
                   {"data.sequence_length", "2048"},
                   {"optim.name", "adamw"},
                   {"optim.lr", "5e-05"},
                   {"optim.schedule", "linear"},
                   {"train.epochs", "3"},
                   {"train.micro_batch_size", "8"},
                   {"output.dir", "imported-run"}};
  return tool;
}

}  // namespace qlora::recipes
