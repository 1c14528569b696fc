#include <fmt/format.h>

#include "recipes/fields/values_in_words.h"
#include "recipes/import/conversions.h"
#include "recipes/import/datasets.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {

constexpr const char* kMergeAware = "adapters are not trained for a merge in NVFP4";

std::string compute_dtypes() {
  return "train.compute_dtype is " + values_in_words("train.compute_dtype");
}

std::string quant_type(const Node& root) {
  return text(in_file(root, "bnb_config_kwargs.bnb_4bit_quant_type"), "nf4");
}

void read_adapter(const Found& found, const ToolKey& key, Draft& draft) {
  if (found.value.text == "qlora")
    return draft.set(found, key.here, Node::string(quant_type(found.root)));
  if (found.value.text == "lora") return draft.without_effect(found, "adapters are LoRA");
  draft.refuse(found, "adapters are LoRA, rsLoRA and DoRA here");
}

void read_four_bit(const Found& found, const ToolKey& key, Draft& draft) {
  if (!is_true(&found.value)) return draft.without_effect(found, "it is off");
  draft.set(found, key.here, Node::string(quant_type(found.root)));
}

void read_targets(const Found& found, const ToolKey& key, Draft& draft) {
  if (is_true(beside(found, "lora_target_linear")))
    return draft.without_effect(found, "lora_target_linear takes every linear layer");
  draft.set(found, key.here, plain(found.value));
}

// "offload" and its relatives recompute, and keep the rest elsewhere.
void read_checkpointing(const Found& found, const ToolKey& key, Draft& draft) {
  draft.set(found, key.here, Node::scalar(is_off(found.value) ? "false" : "true"));
}

void read_length_strategy(const Found& found, const ToolKey& key, Draft& draft) {
  const std::string theirs = found.value.text;
  draft.set(found, key.here,
            Node::string(theirs == "truncate" ? "truncate_right"
                         : theirs == "raise"  ? "error"
                                              : theirs));
}

void read_plugins(const Found& found, const ToolKey&, Draft& draft) {
  for (const std::string& plugin : texts(found.value))
    if (plugin.find("liger") == std::string::npos &&
        plugin.find("cut_cross_entropy") == std::string::npos &&
        plugin.find("kernels") == std::string::npos)
      return draft.refuse(found, fmt::format("{} has no counterpart", plugin));
  draft.without_effect(found, kFused);
}

void read_peft_init(const Found& found, const ToolKey& key, Draft& draft) {
  find_key(find_tool("peft"), "init_lora_weights")->convert(found, key, draft);
}

void read_shortest(const Found& found, const ToolKey&, Draft& draft) {
  if (is_off(found.value)) return draft.without_effect(found, "it is off");
  draft.set_in_datasets(found, "min_tokens", plain(found.value));
}

void refuse_count_an_epoch(const Found& found, const ToolKey& key, Draft& draft) {
  if (is_off(found.value)) return draft.without_effect(found, "it is off");
  draft.refuse(found, "it counts in an epoch; " + key.here + " is the steps between two");
}

void read_fp32_offload(const Found& found, const ToolKey& key, Draft& draft) {
  if (!is_true(&found.value)) return draft.without_effect(found, "it is off");
  if (!is_true(in_file(found.root, "load_in_8bit")))
    return draft.without_effect(found, "blocks on the cpu or on disk are quantized as all others");
  draft.set(found, key.here, plain(found.value));
}

// The one key of `peft` sets LoftQ up.
void read_loftq_bits(const Found& found, const ToolKey& key, Draft& draft) {
  draft.set(found, key.here, Node::string("loftq"));
}

std::vector<ToolKey> model_keys() {
  std::vector<ToolKey> keys = {
      same("device_map", "model.device_map"),
      memory_limits("max_memory"),
      read_by("load_in_4bit", "quantization.method", "", read_four_bit, "nf4"),
      when_true("load_in_8bit", "quantization.method", "int8"),
      same("bnb_config_kwargs.bnb_4bit_use_double_quant", "quantization.double_quant"),
      read_by("bnb_config_kwargs.bnb_4bit_quant_type", "quantization.method", "",
              [](const Found& found, const ToolKey&, Draft& draft) {
                draft.take(found, "quantization.method");  // read with load_in_4bit
              }),
      list_of("bnb_config_kwargs.llm_int8_skip_modules", "quantization.skip_modules"),
      same("bnb_config_kwargs.llm_int8_threshold", "quantization.threshold"),
      read_by("bnb_config_kwargs.llm_int8_enable_fp32_cpu_offload", "quantization.fp32_cpu_offload",
              "with method int8", read_fp32_offload),
      idle("bnb_config_kwargs.bnb_4bit_compute_dtype", "train.compute_dtype: auto"),
      idle("bnb_config_kwargs.bnb_4bit_quant_storage", "weights are stored as their 4 bits"),
      dtype("torch_dtype", "model.dtype"),
      bf16({"fp16", "bfloat16", "float16", "torch_dtype", "load_in_8bit"}),
      when_true("bfloat16", "model.dtype", "bfloat16"),
      when_true("float16", "model.dtype", "float16"),
      when_true("float32", "train.compute_dtype", "float32"),
      refused("overrides_of_model_config", "model.path's config.json holds its sizes"),
      refused("overrides_of_model_config.*", "model.path's config.json holds its sizes"),
      refused("overrides_of_model_kwargs", "model.path's config.json holds its sizes"),
      refused("overrides_of_model_kwargs.*", "model.path's config.json holds its sizes"),
      refused("model_config.*", "model.path's config.json holds its sizes"),
      refused("rope_scaling", "model.path's config.json holds its sizes"),
      refused("model_quantization_config*", "model.path's config.json says how it is stored"),
      idle("gptq", "model.path's config.json says how it is stored"),
      idle("gptq_*", "model.path's config.json says how it is stored"),
      refused("reinit_weights", "weights are those of model.path"),
      refused("quantization", "`qlora quantize` writes a quantized model"),
      refused("quantization.*", "`qlora quantize` writes a quantized model"),
      refused("qat", "the base is quantized and frozen"),
      refused("qat.*", "the base is quantized and frozen"),
      refused("llmcompressor", "the base is neither pruned nor compressed while it is trained"),
      refused("llmcompressor.*", "the base is neither pruned nor compressed while it is trained"),
      idle("quantize_moe_experts", "experts are quantized in any case"),
      refused("unfrozen_parameters", "lora.modules_to_save trains modules as a whole"),
      refused("fp8", compute_dtypes()),
      refused("fp8_*", compute_dtypes()),
      refused("dsv4_fp4_grouped_mode", compute_dtypes()),
      idle("strict", "an unknown key is an error in any case"),
      idle("trust_remote_code", "no code of a model's directory is run")};
  add_missing(keys, model_path("base_model", "revision_of_model"));
  add_missing(
      keys,
      idle_all(
          {"base_model_config", "model_type", "type_of_model", "cls_model_config",
           "is_falcon_derived_model", "is_llama_derived_model", "is_mistral_derived_model",
           "is_qwen_derived_model", "processor_type", "processor_kwargs", "freeze_mm_modules",
           "use_onebitllms", "experimental_skip_move_to_device", "low_cpu_mem_usage",
           "qlora_sharded_model_loading", "lora_on_cpu", "gpu_memory_limit", "layer_offloading"},
          "the model is what its files say, and lies on train.device"));
  add_missing(keys, idle_all({"tokenizer_*", "added_tokens_overrides", "special_tokens.bos_token",
                              "special_tokens.pad_token", "special_tokens.unk_token"},
                             kTokenizer));
  add_missing(keys, refused_all({"tokens", "special_tokens.additional_special_tokens",
                                 "resize_token_embeddings_to_32x", "shrink_embeddings"},
                                kVocabulary));
  add_missing(keys, refused_all({"nonexpert_quantization", "dsv4_fp8_nonexpert_mode",
                                 "gemma4_fp8_nonexpert", "gemma4_nf4_nonexpert"},
                                "quantization.method is that of all linear layers but those of "
                                "quantization.skip_modules"));
  add_missing(keys, refused_all({"special_tokens.eos_token", "eot_tokens"},
                                "answers end with the token that the model's template has"));
  add_missing(keys, idle_all({"embeddings_skip_upcast", "fp32_norms", "fp32_norm_classes"},
                             "model.upcast says what is held in float32"));
  keys.push_back(idle("mean_resizing_embeddings", kVocabulary));
  keys.push_back(refused("fix_untrained_tokens", "weights are those of model.path"));
  return keys;
}

std::vector<ToolKey> lora_keys() {
  ToolKey loftq = read_by("peft.loftq_config.loftq_bits", "lora.init",
                          "quantization.method gives the bits", read_loftq_bits);
  loftq.value = "loftq";
  return {read_by("adapter", "quantization.method", "for qlora; adapters are always LoRA",
                  read_adapter, "nf4"),
          same("lora_r", "lora.rank"),
          same("lora_alpha", "lora.alpha"),
          axolotl_dropout(),
          read_by("lora_target_modules", "lora.targets", "", read_targets),
          when_true("lora_target_linear", "lora.targets", "all-linear"),
          same("lora_target_parameters", "lora.target_parameters"),
          same("lora_modules_to_save", "lora.modules_to_save"),
          same("lora_rank_pattern", "lora.rank_pattern"),
          same("lora_alpha_pattern", "lora.alpha_pattern"),
          same("lora_model_dir", "lora.from_adapter"),
          same("peft_layers_to_transform", "lora.layers_to_transform"),
          same("peft_use_dora", "lora.use_dora"),
          same("peft_use_rslora", "lora.use_rslora"),
          same("peft_trainable_token_indices", "lora.trainable_token_indices"),
          same("peft_ensure_weight_tying", "lora.ensure_weight_tying"),
          read_by("peft_init_lora_weights", "lora.init", "", read_peft_init),
          loftq,
          same("loraplus_lr_ratio", "lora.plus_lr_ratio"),
          refused("loraplus_lr_embedding", "embeddings learn at optim.lr"),
          refused("embedding_lr", "embeddings learn at optim.lr"),
          refused("embedding_lr_scale", "embeddings learn at optim.lr"),
          refused("lr_groups",
                  "all that is trained learns at optim.lr; lora.plus_lr_ratio sets B "
                  "apart"),
          refused("peft_layers_pattern", "lora.layers_to_transform counts decoder layers"),
          refused("peft_layer_replication", "layers are not repeated"),
          idle("peft_autocast_adapter_dtype", "adapters are float32 (lora.dtype)"),
          idle("lora_fan_in_fan_out", "how a layer's weight lies is known of its family"),
          refused("nvfp4_merge_aware", kMergeAware),
          refused("nvfp4_merge_aware_start_step", kMergeAware),
          refused("relora", "ReLoRA is not had"),
          refused("relora_*", "ReLoRA is not had"),
          refused("lisa_*", "LISA is not had"),
          idle("merge_lora", "`qlora export --format merged` merges"),
          idle("merge_method", "`qlora export --format merged` merges")};
}

std::vector<ToolKey> data_keys() {
  std::vector<ToolKey> keys = {
      read_by("datasets", "data.train", "", read_axolotl_datasets),
      read_by("test_datasets", "data.eval", "", read_axolotl_datasets),
      read_by("pretraining_dataset", "data.train", "format text", read_axolotl_pretraining),
      same("sequence_len", "data.sequence_length"),
      same("max_packed_sequence_len", "data.sequence_length"),
      read_by("excess_length_strategy", "data.on_overlength", "", read_length_strategy),
      same("sample_packing", "data.packing"),
      share("val_set_size", "data.eval_fraction"),
      renamed("train_on_inputs", "data.train_on", {{"true", "all"}, {"false", "assistant"}},
              "true is all, false is assistant"),
      axolotl_template("chat_template", chat_template("chat_template")),
      axolotl_template("chat_template_jinja", same("", "data.chat_template")),
      refused("chat_template_kwargs", "a row has chat_template_kwargs of its own"),
      read_by("min_sample_len", "data.train[].min_tokens", "", read_shortest),
      same("dataset_prepared_path", "data.cache_dir"),
      refused("eval_sequence_len", "evaluation rows have data.sequence_length too"),
      idle("push_dataset_to_hub", kNoUpload),
      idle("hf_use_auth_token", kNoNetwork),
      refused("dataset_shard_*", "the file must hold the rows to train on"),
      refused("use_pose", "positions are those of the rows"),
      refused("pose_*", "positions are those of the rows"),
      refused("image_*", "rows are text"),
      refused("role_boundaries", "the chat template says where turns begin and end")};
  add_missing(keys, axolotl_dataset_keys());
  add_missing(keys, axolotl_share_keys());
  add_missing(keys, axolotl_row_order_keys());
  add_missing(keys,
              idle_all({"dataset_*", "skip_prepare_dataset", "num_dataset_shards_to_save",
                        "shuffle_before_merging_datasets", "is_preprocess", "preprocess_iterable",
                        "total_num_tokens", "total_supervised_tokens", "streaming",
                        "streaming_multipack_buffer_size", "axolotl_config_path"},
                       "rows are prepared before training and need no key"));
  add_missing(keys, idle_all({"sample_packing_*", "multipack_real_batches", "pretrain_multipack_*",
                              "pretraining_sample_concatenation"},
                             "data.packing puts whole rows into a sequence"));
  add_missing(keys, idle_all({"pad_to_sequence_len", "pad_to_multiple_of", "batch_flattening"},
                             kNoPadding));
  keys.push_back(idle("eval_sample_packing", kEvaluationPacking));
  return keys;
}

std::vector<ToolKey> training_keys() {
  std::vector<ToolKey> keys = {
      same("micro_batch_size", "train.micro_batch_size"),
      same("num_epochs", "train.epochs"),
      refused("batch_size",
              "train.micro_batch_size times gradient_accumulation_steps are a step's sequences"),
      idle("eval_batch_size", "evaluation uses train.micro_batch_size"),
      optimizer("optimizer"),
      schedule("lr_scheduler"),
      warmup("warmup_steps", "optim.warmup_steps", "lr_scheduler"),
      warmup("warmup_ratio", "optim.warmup_ratio", "lr_scheduler"),
      same("cosine_min_lr_ratio", "optim.min_lr_ratio"),
      refused("eta_min", "optim.min_lr_ratio is where a cosine ends, as a share of optim.lr"),
      same("adam_eps", "optim.eps"),
      read_by("gradient_checkpointing", "train.gradient_checkpointing", "", read_checkpointing),
      refused("cosine_constant_lr_ratio", "optim.schedule: wsd stays and falls at the end"),
      refused("lr_quadratic_warmup", "the rate rises in a line"),
      refused("lr_div_factor", "optim.schedule has no one_cycle"),
      refused("adam_beta3", "optim.betas takes ademamix's three"),
      refused("adam_epsilon2", "CAME is not had"),
      read_by("evals_per_epoch", "train.eval_every", "in steps", refuse_count_an_epoch),
      read_by("saves_per_epoch", "train.save_every", "in steps", refuse_count_an_epoch),
      resume("auto_resume_from_checkpoints"),
      same("early_stopping_patience", "train.early_stopping_patience"),
      idle("save_first_step", "a run saves every train.save_every steps and at its end"),
      idle("loss_watchdog_*", "train.audit watches the loss"),
      idle("device", "train.device: auto takes a GPU where there is one"),
      read_by("plugins", "", kFused, read_plugins),
      refused("trainer_cls", "there is one trainer"),
      refused("dynamic_checkpoint", "Ctrl-C saves a run, and the same command continues it"),
      refused("dynamic_checkpoint.*", "Ctrl-C saves a run, and the same command continues it"),
      refused("noisy_embedding_alpha", "no noise is added to embeddings"),
      refused("use_eaft", "the loss weighs all trained tokens alike"),
      refused("diffusion", "models are autoregressive"),
      refused("diffusion.*", "models are autoregressive")};
  add_missing(keys, evaluation_keys(/*always=*/true));
  add_missing(keys,
              refused_all({"deepcompile", "ddp", "world_size", "dp_shard_size", "dp_replicate_size",
                           "sequence_parallel_degree", "context_parallel_size", "expert_parallel_*",
                           "tensor_parallel_size", "ring_attn_func", "use_ray", "fsdp_config.*"},
                          kNoSharding));
  add_missing(keys, refused_all({"dion_*", "qgalore_*", "jagged_*", "torchdistx_path"},
                                "optim has no key for it"));
  add_missing(keys, idle_all({"heads_k_stride", "ray_*", "resources_per_worker"}, kNoSharding));
  return keys;
}

std::vector<ToolKey> kernel_keys() {
  std::vector<ToolKey> keys = idle_all(
      {"xformers_attention", "sdp_attention", "flex_attention", "flex_attn_*", "flash_attention",
       "flash_attn_*", "flash_optimum", "sage_attention", "eager_attention", "attn_implementation",
       "gemma4_hybrid_attn_impl", "large_head_attention", "sdpa_varlen", "fused_attn_kernel"},
      kAttention);
  keys.push_back(refused("s2_attention", kOwnAttention));
  add_missing(keys, idle_all({"liger_*", "cut_cross_entropy", "unsloth_*", "lora_mlp_kernel",
                              "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel",
                              "chunked_cross_entropy*", "tiled_mlp*", "use_kernels",
                              "experts_implementation", "use_scattermoe", "use_sonicmoe",
                              "llama4_linearized_experts"},
                             kFused));
  add_missing(keys, idle_all({"gc_steps", "gc_collect_steps", "activation_offloading",
                              "selective_checkpointing", "selective_checkpointing.*"},
                             kMemory));
  add_missing(keys,
              idle_all({"use_dsv4_kernels", "use_glm_dsa_kernels", "expert_backend",
                        "moe_grouped_backend", "moe_dequant_chunk_size", "moe_bnb_fast",
                        "dsv4_fp8_lora_kernel", "dsv4_shared_mlp_lora_kernel", "dsv4_bf16_all"},
                       kFused));
  add_missing(keys, refused_all({"scaling_softmax", "scaling_softmax_*", "eaft_*"},
                                "attention and loss are those of the model"));
  add_missing(keys, idle_all({"eval_table_size", "eval_max_new_tokens", "eval_causal_lm_metrics",
                              "do_causal_lm_eval", "do_bench_eval", "bench_*", "generate_samples",
                              "num_generation_samples", "generation_*", "gradio_*"},
                             kNoAnswers));
  keys.push_back(idle("profiler_*", kProfiles));
  return keys;
}

void finish(const Node& root, Draft& draft) {
  finish_axolotl_preferences(root, draft);
  if (!in_file(root, "adapter"))
    draft.warn("Axolotl trains the whole model without an adapter; here adapters are trained");
  const bool warms_up = in_file(root, "warmup_steps") || in_file(root, "warmup_ratio");
  if (!warms_up && text(in_file(root, "lr_scheduler")) != "constant")
    draft.set_default("optim.warmup_ratio", Node::scalar("0.03"), "Axolotl");
}

}  // namespace

Tool axolotl_tool() {
  Tool tool{"axolotl", "Axolotl", {}, {}, finish};
  for (const auto& part : {model_keys(), lora_keys(), axolotl_preference_keys(), data_keys(),
                           training_keys(), kernel_keys(), training_argument_keys()})
    add_missing(tool.keys, part);
  tool.defaults = {{"data.sequence_length", "512"}, {"data.packing", "false"},
                   {"data.on_overlength", "drop"},  {"optim.name", "adamw"},
                   {"train.epochs", "1"},           {"output.dir", "model-out"}};
  return tool;
}

}  // namespace qlora::recipes
