// The keys that the examples of other tools have, with values made up here: none is unknown.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "recipes/import/import_recipe.h"
#include "tests/support/imported_recipe.h"

namespace qlora::recipes {
namespace {
using test::imported;
using test::keys_with;
using testing::IsEmpty;

// Of Axolotl's examples of LoRA, QLoRA and DPO.
constexpr const char* kAxolotl = R"(
{base_model: org/model, model_type: AutoModelForCausalLM, tokenizer_type: AutoTokenizer, hub_model_id: me/it, trust_remote_code: true,
 load_in_8bit: false, load_in_4bit: true, strict: false, rl: dpo, chat_template: llama3, train_on_inputs: false,
 datasets: [{path: rows.jsonl, type: chat_template.default, field_messages: conversation, field_chosen: chosen,
             field_rejected: rejected, message_property_mappings: {role: role, content: content}, ds_type: json, split: train}],
 dataset_prepared_path: prepared, val_set_size: 0.05, output_dir: ./out, adapter: qlora, lora_model_dir: null, sequence_len: 2048,
 sample_packing: false, eval_sample_packing: false, pad_to_sequence_len: true, lora_r: 32, lora_alpha: 16, lora_dropout: 0.05,
 lora_target_modules: null, lora_target_linear: true, lora_fan_in_fan_out: null, lora_modules_to_save: [embed_tokens, lm_head],
 wandb_project: null, wandb_entity: null, wandb_watch: null, wandb_name: null, wandb_log_model: null, gradient_accumulation_steps: 4,
 micro_batch_size: 2, num_epochs: 1, optimizer: paged_adamw_32bit, lr_scheduler: cosine, learning_rate: 0.0002, group_by_length: false,
 bf16: auto, fp16: null, tf32: false, gradient_checkpointing: true, gradient_checkpointing_kwargs: {use_reentrant: false},
 early_stopping_patience: null, resume_from_checkpoint: null, local_rank: null, logging_steps: 1, xformers_attention: null,
 flash_attention: true, loss_watchdog_threshold: 5.0, loss_watchdog_patience: 3, warmup_steps: 10, evals_per_epoch: 4,
 eval_table_size: null, eval_max_new_tokens: 128, saves_per_epoch: 1, save_first_step: true, save_safetensors: true, debug: null,
 deepspeed: zero2.json, weight_decay: 0.0, fsdp: [full_shard], fsdp_config: {fsdp_offload_params: true, fsdp_use_orig_params: false},
 special_tokens: {bos_token: <s>, eos_token: </s>, unk_token: <unk>, pad_token: </s>}, plugins: [axolotl.integrations.liger.LigerPlugin],
 liger_rope: true, liger_rms_norm: true, liger_glu_activation: true, liger_fused_linear_cross_entropy: true,
 lora_mlp_kernel: true, lora_qkv_kernel: true, lora_o_kernel: true})";

// Of LLaMA-Factory's examples of LoRA and QLoRA, supervised and by preferences.
constexpr const char* kLlamaFactory = R"(
{model_name_or_path: org/model, quantization_bit: 4, quantization_method: bnb, double_quantization: false, trust_remote_code: true,
 image_max_pixels: 262144, video_max_pixels: 16384, stage: dpo, do_train: true, finetuning_type: lora, lora_rank: 8, lora_target: all,
 pref_beta: 0.1, pref_loss: sigmoid, deepspeed: zero3.json, dataset: pairs, template: llama3, cutoff_len: 2048, max_samples: 1000,
 overwrite_cache: true, preprocessing_num_workers: 16, dataloader_num_workers: 4, tokenized_path: tokens, output_dir: saves/it,
 logging_steps: 10, save_steps: 500, plot_loss: true, overwrite_output_dir: true, save_only_model: false, report_to: none,
 per_device_train_batch_size: 1, gradient_accumulation_steps: 8, learning_rate: 5.0e-6, num_train_epochs: 3.0,
 lr_scheduler_type: cosine, warmup_ratio: 0.1, bf16: true, ddp_timeout: 180000000, resume_from_checkpoint: null, eval_dataset: pairs,
 val_size: 0.1, per_device_eval_batch_size: 1, eval_strategy: steps, eval_steps: 500, use_badam: false, pure_bf16: true,
 streaming: false, buffer_size: 128, loraplus_lr_ratio: 16.0, pissa_init: false, flash_attn: fa2})";

// Of torchtune's recipes of LoRA and QLoRA on one device, and of DPO.
constexpr const char* kTorchtune = R"(
{output_dir: /tmp/it,
 model: {_component_: torchtune.models.llama3_2.qlora_llama3_2_1b, lora_attn_modules: [q_proj, v_proj, output_proj],
         apply_lora_to_mlp: true, apply_lora_to_output: false, lora_rank: 64, lora_alpha: 128, lora_dropout: 0.0},
 tokenizer: {_component_: torchtune.models.llama3.llama3_tokenizer, path: m/tokenizer.model, max_seq_len: null},
 checkpointer: {_component_: torchtune.training.FullModelHFCheckpointer, checkpoint_dir: m, checkpoint_files: [model.safetensors],
                recipe_checkpoint: null, output_dir: "${output_dir}", model_type: LLAMA3_2},
 resume_from_checkpoint: false, save_adapter_weights_only: false,
 dataset: {_component_: torchtune.datasets.alpaca_cleaned_dataset, packed: false, split: "train[:95%]"},
 dataset_val: {_component_: torchtune.datasets.alpaca_cleaned_dataset, split: "train[95%:]"}, run_val_every_n_steps: null,
 batch_size_val: 1, seed: null, shuffle: true, batch_size: 4,
 optimizer: {_component_: torch.optim.AdamW, fused: true, weight_decay: 0.01, lr: 3e-4},
 lr_scheduler: {_component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup, num_warmup_steps: 100},
 loss: {_component_: torchtune.modules.loss.LinearCrossEntropyLoss}, epochs: 1, max_steps_per_epoch: null, clip_grad_norm: null,
 gradient_accumulation_steps: 8, compile: false, device: cuda, dtype: bf16, enable_activation_checkpointing: false,
 enable_activation_offloading: false, log_every_n_steps: 1, log_peak_memory_stats: true, log_level: INFO,
 metric_logger: {_component_: torchtune.training.metric_logging.DiskLogger, log_dir: "${output_dir}/logs"},
 profiler: {_component_: torchtune.training.setup_torch_profiler, enabled: false, output_dir: "${output_dir}/p", cpu: true,
            cuda: true, profile_memory: false, with_stack: false, record_shapes: true, with_flops: false, wait_steps: 5,
            warmup_steps: 3, active_steps: 2, num_cycles: 1}})";

// Of the configurations in TRL's documentation of its commands.
constexpr const char* kTrl = R"(
{model_name_or_path: org/model, dataset_name: org/rows, dataset_config: null, dataset_train_split: train, dataset_test_split: test,
 learning_rate: 2.0e-4, num_train_epochs: 1, packing: true, per_device_train_batch_size: 2, gradient_accumulation_steps: 8,
 gradient_checkpointing: true, eos_token: "<|im_end|>", eval_strategy: steps, eval_steps: 100, use_peft: true, lora_r: 32,
 lora_alpha: 16, lora_dropout: 0.05, lora_target_modules: [q_proj, v_proj], load_in_4bit: true, attn_implementation: sdpa,
 dtype: bfloat16, output_dir: out, push_to_hub: false, hub_model_id: me/it, max_length: 2048, logging_steps: 25, logging_strategy: steps,
 logging_dir: logs, bf16: true, report_to: [wandb], run_name: it, save_strategy: steps, save_steps: 200, dataset_num_proc: 4,
 dataset_text_field: text, warmup_ratio: 0.03, lr_scheduler_type: cosine, remove_unused_columns: false, use_liger_kernel: true,
 torch_compile: false, ddp_find_unused_parameters: false, seed: 42})";

TEST(ImportExamples, HaveNoKeyThatIsUnknown) {
  const std::map<std::string, const char*> examples = {{"axolotl", kAxolotl},
                                                       {"llama-factory", kLlamaFactory},
                                                       {"torchtune", kTorchtune},
                                                       {"trl", kTrl}};
  for (const auto& [tool, text] : examples)
    EXPECT_THAT(keys_with(imported(text, tool), Fate::kUnknown), IsEmpty()) << tool;
}

}  // namespace
}  // namespace qlora::recipes
